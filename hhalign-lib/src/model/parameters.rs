//! One structure for all values that exist once per parameter of a model: weights, gradients,
//! moments, shapes, addresses on a card. Names, shapes and order are defined only here.

use super::GptConfig;
use crate::base::error::Result;

/// One `T` for each parameter of a model.
///
/// The names are those of llm.c's `ParameterTensors`. A parameter that a family of models lacks is
/// `None`: GPT-2 has no gate and no untied head; a Llama has no position embedding and no biases.
///
/// # Example
/// ```
/// use hhalign::model::Preset;
/// let shapes = Preset::Toy.config(300).parameters();
/// assert_eq!(shapes.wte.name, "transformer.wte.weight");
/// assert_eq!(shapes.blocks[0].qkv.weight.shape, [128, 3 * 128]);
/// assert_eq!(shapes.into_vec().len(), 2 + 4 * 12 + 2);
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Parameters<T> {
    /// Token embedding, (V, C).
    pub wte: T,
    /// Position embedding, (block_size, C).
    pub wpe: Option<T>,
    /// The transformer blocks, first to last.
    pub blocks: Vec<BlockParameters<T>>,
    /// The final layer norm.
    pub lnf: Affine<T>,
    /// The output head, (V, C), if it is not tied to `wte`.
    pub head: Option<T>,
}

/// One `T` for each parameter of a transformer block.
#[derive(Debug, Clone, PartialEq)]
pub struct BlockParameters<T> {
    /// The layer norm before attention, (C).
    pub ln1: Affine<T>,
    /// Queries, keys and values in one matrix, (C, C + 2 · width of all key/value heads).
    pub qkv: Affine<T>,
    /// The projection from the heads' outputs to the residual stream, (C, C).
    pub attproj: Affine<T>,
    /// The layer norm before the MLP, (C).
    pub ln2: Affine<T>,
    /// The input projection of the MLP, (C, F); F = 4C in GPT-2.
    pub fc: Affine<T>,
    /// The gate of a gated MLP, (C, F).
    pub gate: Option<Affine<T>>,
    /// The output projection of the MLP to the residual stream, (F, C).
    pub fcproj: Affine<T>,
}

/// The parameters of a linear layer or a norm: a weight, and a bias if the family has one.
#[derive(Debug, Clone, PartialEq)]
pub struct Affine<T> {
    /// The weight.
    pub weight: T,
    /// The bias.
    pub bias: Option<T>,
}

/// The Hugging Face name and the shape of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterSpec {
    /// The name, such as `transformer.h.0.attn.c_attn.weight`.
    pub name: String,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
}

impl ParameterSpec {
    /// Returns the number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns whether the parameter is a matrix. AdamW decays matrices, but not biases and norms.
    pub fn is_matrix(&self) -> bool {
        self.shape.len() >= 2
    }
}

impl<T> Affine<T> {
    fn try_map<U>(self, f: &mut impl FnMut(T) -> Result<U>) -> Result<Affine<U>> {
        Ok(Affine { weight: f(self.weight)?, bias: self.bias.map(f).transpose()? })
    }

    fn as_ref(&self) -> Affine<&T> {
        Affine { weight: &self.weight, bias: self.bias.as_ref() }
    }

    fn as_mut(&mut self) -> Affine<&mut T> {
        Affine { weight: &mut self.weight, bias: self.bias.as_mut() }
    }
}

impl<T> BlockParameters<T> {
    /// Visits matrices first and norms last. Vectors on a card and sums over all parameters use
    /// this order.
    fn try_map<U>(self, f: &mut impl FnMut(T) -> Result<U>) -> Result<BlockParameters<U>> {
        let (qkv, attproj, fc) =
            (self.qkv.try_map(f)?, self.attproj.try_map(f)?, self.fc.try_map(f)?);
        let gate = self.gate.map(|gate| gate.try_map(f)).transpose()?;
        let fcproj = self.fcproj.try_map(f)?;
        let (ln1, ln2) = (self.ln1.try_map(f)?, self.ln2.try_map(f)?);
        Ok(BlockParameters { ln1, qkv, attproj, ln2, fc, gate, fcproj })
    }

    fn as_ref(&self) -> BlockParameters<&T> {
        BlockParameters {
            ln1: self.ln1.as_ref(),
            qkv: self.qkv.as_ref(),
            attproj: self.attproj.as_ref(),
            ln2: self.ln2.as_ref(),
            fc: self.fc.as_ref(),
            gate: self.gate.as_ref().map(Affine::as_ref),
            fcproj: self.fcproj.as_ref(),
        }
    }

    fn as_mut(&mut self) -> BlockParameters<&mut T> {
        BlockParameters {
            ln1: self.ln1.as_mut(),
            qkv: self.qkv.as_mut(),
            attproj: self.attproj.as_mut(),
            ln2: self.ln2.as_mut(),
            fc: self.fc.as_mut(),
            gate: self.gate.as_mut().map(Affine::as_mut),
            fcproj: self.fcproj.as_mut(),
        }
    }
}

impl<T> Parameters<T> {
    /// Applies `f` to every parameter in a fixed order: embeddings, blocks, final norm, head.
    ///
    /// # Errors
    /// The first error of `f`.
    pub fn try_map<U>(self, mut f: impl FnMut(T) -> Result<U>) -> Result<Parameters<U>> {
        Ok(Parameters {
            wte: f(self.wte)?,
            wpe: self.wpe.map(&mut f).transpose()?,
            blocks: self
                .blocks
                .into_iter()
                .map(|block| block.try_map(&mut f))
                .collect::<Result<_>>()?,
            lnf: self.lnf.try_map(&mut f)?,
            head: self.head.map(&mut f).transpose()?,
        })
    }

    /// Applies `f` to every parameter in the fixed order.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Parameters<U> {
        self.try_map(|x| Ok(f(x))).expect("the function cannot fail")
    }

    /// Returns references to all parameters.
    pub fn as_ref(&self) -> Parameters<&T> {
        Parameters {
            wte: &self.wte,
            wpe: self.wpe.as_ref(),
            blocks: self.blocks.iter().map(BlockParameters::as_ref).collect(),
            lnf: self.lnf.as_ref(),
            head: self.head.as_ref(),
        }
    }

    /// Returns mutable references to all parameters.
    pub fn as_mut(&mut self) -> Parameters<&mut T> {
        Parameters {
            wte: &mut self.wte,
            wpe: self.wpe.as_mut(),
            blocks: self.blocks.iter_mut().map(BlockParameters::as_mut).collect(),
            lnf: self.lnf.as_mut(),
            head: self.head.as_mut(),
        }
    }

    /// Returns all parameters as one list in the fixed order.
    pub fn into_vec(self) -> Vec<T> {
        let mut all = vec![];
        self.map(|x| all.push(x));
        all
    }

    /// Pairs the values of two structures, parameter by parameter.
    ///
    /// # Panics
    /// The structures belong to models of different families or depths.
    pub fn zip<U>(self, other: Parameters<U>) -> Parameters<(T, U)> {
        let mut others = other.into_vec().into_iter();
        let pairs = self.map(|x| (x, others.next().expect("both structures belong to one model")));
        assert!(others.next().is_none(), "both structures belong to one model");
        pairs
    }
}

impl GptConfig {
    /// Returns the Hugging Face name and the shape of every parameter of a GPT-2.
    pub fn parameters(&self) -> Parameters<ParameterSpec> {
        let c = self.n_embd;
        let spec = |name: String, shape: Vec<usize>| ParameterSpec {
            name: format!("transformer.{name}"),
            shape,
        };
        let affine = |name: String, weight: Vec<usize>| Affine {
            bias: Some(spec(format!("{name}.bias"), weight[weight.len() - 1..].to_vec())),
            weight: spec(format!("{name}.weight"), weight),
        };
        let block = |layer: usize| {
            let of = |name: &str, weight: Vec<usize>| affine(format!("h.{layer}.{name}"), weight);
            BlockParameters {
                ln1: of("ln_1", vec![c]),
                qkv: of("attn.c_attn", vec![c, 3 * c]),
                attproj: of("attn.c_proj", vec![c, c]),
                ln2: of("ln_2", vec![c]),
                fc: of("mlp.c_fc", vec![c, 4 * c]),
                gate: None,
                fcproj: of("mlp.c_proj", vec![4 * c, c]),
            }
        };
        Parameters {
            wte: spec("wte.weight".into(), vec![self.vocab_size, c]),
            wpe: Some(spec("wpe.weight".into(), vec![self.block_size, c])),
            blocks: (0..self.n_layer).map(block).collect(),
            lnf: affine("ln_f".into(), vec![c]),
            head: None,
        }
    }

    /// Returns the number of elements in all parameters. The head is tied to the token embedding
    /// and counts once.
    pub fn n_parameters(&self) -> usize {
        self.parameters().into_vec().iter().map(ParameterSpec::elements).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the shapes of a Llama with two blocks: no position embedding, no biases, a gate,
    /// fewer key/value heads and an untied head.
    fn llama(c: usize, kv: usize, f: usize, v: usize) -> Parameters<Vec<usize>> {
        let bare = |shape: Vec<usize>| Affine { weight: shape, bias: None };
        let block = BlockParameters {
            ln1: bare(vec![c]),
            qkv: bare(vec![c, c + 2 * kv]),
            attproj: bare(vec![c, c]),
            ln2: bare(vec![c]),
            fc: bare(vec![c, f]),
            gate: Some(bare(vec![c, f])),
            fcproj: bare(vec![f, c]),
        };
        Parameters {
            wte: vec![v, c],
            wpe: None,
            blocks: vec![block.clone(), block],
            lnf: bare(vec![c]),
            head: Some(vec![v, c]),
        }
    }

    #[test]
    fn a_second_family_needs_no_second_encoding() {
        let shapes = llama(8, 4, 24, 100);
        let zeros = shapes.as_ref().map(|shape| vec![0f32; shape.iter().product()]);
        assert_eq!(zeros.blocks[1].qkv.weight.len(), 8 * 16);
        assert!(zeros.wpe.is_none() && zeros.blocks[0].fc.bias.is_none());
        // The order is: embedding; per block qkv, attproj, fc, gate, fcproj and two norms; final
        // norm; head.
        let sizes: Vec<usize> = zeros.into_vec().iter().map(Vec::len).collect();
        let block = [128, 64, 192, 192, 192, 8, 8];
        assert_eq!(sizes, [&[800][..], &block, &block, &[8, 800]].concat());
    }

    #[test]
    fn zip_pairs_what_belongs_together_and_refuses_other_families() {
        let config = crate::model::Preset::Toy.config(100);
        let (specs, numbers) =
            (config.parameters(), config.parameters().map(|spec| spec.elements()));
        for (spec, n) in specs.as_ref().zip(numbers.as_ref()).into_vec() {
            assert_eq!(spec.elements(), *n, "{}", spec.name);
        }
        let other = std::panic::catch_unwind(|| specs.zip(llama(8, 4, 24, 100)));
        assert!(other.is_err(), "a GPT-2 and a Llama do not zip");
    }

    #[test]
    fn as_mut_reaches_every_parameter_once() {
        let mut counts = llama(8, 4, 24, 100).map(|_| 0);
        counts.as_mut().map(|n| *n += 1);
        assert!(counts.into_vec().iter().all(|n| *n == 1));
    }
}
