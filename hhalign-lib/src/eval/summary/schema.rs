//! The JSON Schema of `results_summary.json`, generated from the types of its content.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::Value;

use super::file::Content;

/// Returns the JSON Schema of `results_summary.json`, as docs/results_summary.schema.json holds it.
///
/// # Example
/// ```
/// let schema: serde_json::Value = serde_json::from_str(&hhalign::eval::summary::schema())?;
/// assert_eq!(schema["additionalProperties"], false);
/// # Ok::<(), hhalign::base::error::Error>(())
/// ```
pub fn schema() -> String {
    let settings = SchemaSettings::draft2020_12().for_serialize().with_transform(Simple);
    let schema = settings.into_generator().into_root_schema_for::<Content>();
    let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON");
    format!("{text}\n")
}

/// Simplifies a schema: no formats of numbers, no defaults of required fields, descriptions on one
/// line, and `additionalProperties`, which every validator knows, since `properties` lists every
/// field.
#[derive(Clone)]
struct Simple;

impl Transform for Simple {
    fn transform(&mut self, schema: &mut Schema) {
        schema.remove("format");
        schema.remove("default");
        if let Some(Value::String(text)) = schema.get_mut("description") {
            *text = text.replace('\n', " ");
        }
        if schema.get("unevaluatedProperties") == Some(&Value::Bool(false)) {
            schema.remove("unevaluatedProperties");
            schema.insert("additionalProperties".into(), Value::Bool(false));
        }
        transform_subschemas(self, schema);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/results_summary.schema.json");

    #[test]
    fn the_schema_keeps_the_rules_that_types_alone_do_not_give() {
        let schema: Value = serde_json::from_str(&schema()).unwrap();
        let at = |pointer: &str| schema.pointer(pointer).unwrap_or_else(|| panic!("{pointer}"));
        assert_eq!(at("/properties/schema_version/const"), 1);
        for list in ["figures", "comparisons"] {
            assert_eq!(at(&format!("/properties/{list}/minItems")), 1, "{list}");
        }
        for kind in ["value", "estimate"] {
            let rule = format!("/$defs/{kind}");
            assert_eq!(at(&format!("{rule}/then/properties/low/type")), "null", "{kind}");
            assert_eq!(at(&format!("{rule}/else/properties/low/type")), "number", "{kind}");
            assert_eq!(at(&format!("{rule}/else/properties/n/minimum")), 1, "{kind}");
        }
        let tested = "/$defs/comparison/else/properties";
        assert_eq!(at(&format!("{tested}/detail/const")), false);
        assert_eq!(at(&format!("{tested}/verdict/not/const")), "not_tested");
        for hash in ["model/properties/hash", "value/properties/data_hash"] {
            assert_eq!(at(&format!("/$defs/{hash}/pattern")), "^[0-9a-f]{8,64}$", "{hash}");
        }
        let objects =
            schema["$defs"].as_object().unwrap().iter().filter(|(_, d)| d["type"] == "object");
        for (name, object) in objects {
            assert_eq!(object["additionalProperties"], false, "{name}");
        }
        assert!(at("/$defs/value/properties/against").get("anyOf").is_none(), "never null");
    }

    #[test]
    fn the_schema_in_the_docs_is_the_one_of_the_types() {
        if std::env::var_os("HHALIGN_WRITE_SCHEMA").is_some() {
            std::fs::write(PATH, schema()).unwrap();
        }
        assert!(
            std::fs::read_to_string(PATH).unwrap() == schema(),
            "set HHALIGN_WRITE_SCHEMA=1 and run this test again: it writes the file"
        );
    }
}
