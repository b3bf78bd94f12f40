//! Repositories on the hub, and their pinned commits.

use crate::base::error::{Error, Result};

/// Anthropic's preference data: `harmless-base`, `helpful-base`, `helpful-online`,
/// `helpful-rejection-sampled`.
pub const HH_RLHF: &str = "Anthropic/hh-rlhf";

/// GPT-2 of 124 million parameters.
pub const GPT2: &str = "openai-community/gpt2";

/// A toxicity classifier with six labels.
pub const TOXIC_BERT: &str = "unitary/toxic-bert";

/// The commits of names without a revision, so that a run can be repeated later.
const PINNED: [(&str, &str); 3] = [
    (HH_RLHF, "09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa"),
    (GPT2, "607a30d783dfa663caf39e06633721c8d4cfcd7e"),
    (TOXIC_BERT, "4d6c22e74ba2fdd26bc4f7238f50766b045a0d94"),
];

/// The kind of a repository's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Weights, a config, a tokenizer.
    Model,
    /// Rows of data.
    Dataset,
}

/// A repository on the hub at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repo {
    /// The kind of its content.
    pub kind: Kind,
    /// Its name, `OWNER/NAME`.
    pub id: String,
    /// A commit, a branch or a tag.
    pub revision: String,
}

impl Repo {
    /// Returns the repository of a model, `OWNER/NAME` or `OWNER/NAME@REVISION`; without a revision
    /// it is at its pinned commit, or at `main` if none is pinned.
    ///
    /// # Example
    /// ```
    /// use hhalign::base::hub::{GPT2, Repo};
    /// assert_eq!(Repo::model("owner/name@v2").revision, "v2");
    /// assert_eq!(Repo::model("owner/name").revision, "main");
    /// assert!(Repo::model(GPT2).is_pinned());
    /// ```
    pub fn model(name: &str) -> Self {
        Self::new(Kind::Model, name)
    }

    /// Returns the repository of a data set, named as in [`Repo::model`].
    pub fn dataset(name: &str) -> Self {
        Self::new(Kind::Dataset, name)
    }

    fn new(kind: Kind, name: &str) -> Self {
        let (id, revision) = name.split_once('@').map_or((name, None), |(id, r)| (id, Some(r)));
        let pinned = PINNED.iter().find(|(pinned, _)| *pinned == id).map(|(_, commit)| *commit);
        Self { kind, id: id.into(), revision: revision.or(pinned).unwrap_or("main").into() }
    }

    /// Returns the same repository at another revision.
    #[must_use]
    pub fn at(mut self, revision: &str) -> Self {
        self.revision = revision.into();
        self
    }

    /// Whether the revision is a commit, which never changes.
    pub fn is_pinned(&self) -> bool {
        is_commit(&self.revision)
    }

    /// The address of its page.
    pub(super) fn page(&self, endpoint: &str) -> String {
        let folder = if self.kind == Kind::Dataset { "datasets/" } else { "" };
        format!("{endpoint}/{folder}{}", self.id)
    }

    /// The address of a file in a revision.
    pub(super) fn address(&self, endpoint: &str, revision: &str, path: &str) -> String {
        format!(
            "{}/resolve/{}/{}",
            self.page(endpoint),
            escaped(revision, false),
            escaped(path, true)
        )
    }

    /// Says what is wrong with the name or the revision, if anything.
    ///
    /// # Errors
    /// A name or a revision that no repository can have, since its path could leave the cache.
    pub fn check(&self) -> Result<()> {
        let is_valid = |part: &str| {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            !part.is_empty()
                && part.bytes().all(allowed)
                && !part.starts_with('.')
                && !part.contains("--")
        };
        let parts: Vec<&str> = self.id.split('/').collect();
        if parts.len() > 2 || !parts.iter().all(|p| is_valid(p)) {
            let fix =
                "give OWNER/NAME as in the address of its page, such as openai-community/gpt2";
            return Err(Error::new(
                "this is not the name of a repository",
                format!("{:?}", self.id),
                fix,
            ));
        }
        check_parts(&self.revision, "a revision", "give a commit, a branch or a tag, such as main")
    }
}

/// # Errors
/// A path that could leave the cache.
pub(super) fn check_path(path: &str) -> Result<()> {
    check_parts(
        path,
        "a file's path in a repository",
        "give it as the repository shows it, such as data/train.jsonl.gz",
    )
}

fn check_parts(text: &str, what: &str, fix: &str) -> Result<()> {
    let is_valid = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(['\\', '\0'])
    };
    if text.split('/').all(is_valid) && !text.chars().any(char::is_control) {
        return Ok(());
    }
    Err(Error::new(format!("this is not {what}"), format!("{text:?}"), fix))
}

/// Whether a revision is a full commit hash.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40
        && revision.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A part of an address, with reserved characters written as `%XX`.
fn escaped(text: &str, slashes: bool) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.~".contains(&b) || (slashes && b == b'/');
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_the_hubs() {
        let at = |repo: Repo, path: &str| repo.address("https://h", &repo.revision, path);
        let data = at(Repo::dataset("Anthropic/hh-rlhf@refs/pr/1"), "harmless-base/a b.gz");
        assert_eq!(
            data,
            "https://h/datasets/Anthropic/hh-rlhf/resolve/refs%2Fpr%2F1/harmless-base/a%20b.gz"
        );
        assert_eq!(
            at(Repo::model("gpt2"), "config.json"),
            "https://h/gpt2/resolve/main/config.json"
        );
    }

    #[test]
    fn names_that_could_leave_the_cache_are_refused() {
        for wrong in ["", "a/b/c", "../x", "a/..", "a//b", "a/b?c", "a/ b", "a--b/c"] {
            assert!(Repo::model(wrong).check().is_err(), "{wrong:?}");
        }
        for wrong in ["", "..", "a/../b", "/etc/passwd", "a\\b", "a\nb", "a//b"] {
            assert!(
                check_path(wrong).is_err() && Repo::model("a/b").at(wrong).check().is_err(),
                "{wrong:?}"
            );
        }
        for (id, commit) in PINNED {
            assert!(is_commit(commit) && Repo::model(id).check().is_ok(), "{id}");
        }
    }
}
