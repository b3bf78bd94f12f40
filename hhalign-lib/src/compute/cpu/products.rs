//! The three products of a linear layer, in f32 or with bf16 operands.

use crate::compute::cpu::bf16::{self, LeftBuffer, PackedRight};
use crate::compute::cpu::few_rows::Strips;
use crate::compute::cpu::gemm::{self, Matrix, Store};

/// A parameter as a matrix (in, out), with two packed forms if products run in bf16. A vector is a
/// matrix of one row.
pub(super) struct Weight<'a> {
    pub(super) matrix: Matrix<'a>,
    pub(super) n_in: usize,
    pub(super) n_out: usize,
    packed: Option<[PackedRight; 2]>,
    pub(super) strips: Option<Strips>,
}

impl<'a> Weight<'a> {
    /// Makes a weight that is stored (in, out), as GPT-2's linear layers are.
    pub(super) fn stored(data: &'a [f32], n_out: usize) -> Self {
        Self {
            matrix: Matrix::rows(data, n_out),
            n_in: data.len() / n_out,
            n_out,
            packed: None,
            strips: None,
        }
    }

    /// Makes a weight that is stored (out, in), as the head is.
    pub(super) fn transposed(data: &'a [f32], n_in: usize, n_out: usize) -> Self {
        Self {
            matrix: Matrix::rows(data, n_in).transposed(),
            n_in,
            n_out,
            packed: None,
            strips: None,
        }
    }

    /// Returns the numbers in the order in which they are stored.
    pub(super) fn values(&self) -> &'a [f32] {
        self.matrix.data
    }

    /// Returns a row of an embedding.
    pub(super) fn row(&self, index: usize) -> &'a [f32] {
        &self.matrix.data[index * self.n_out..][..self.n_out]
    }

    /// Copies the matrix into strips for products of a few rows.
    pub(super) fn make_strips(&mut self) {
        self.strips = Some(Strips::new(self.matrix, self.n_in, self.n_out));
    }

    /// Computes `out += x W` for a few rows x, from the strips.
    pub(super) fn add_few_rows(&self, x: &[f32], out: &mut [f32]) {
        let strips = self.strips.as_ref().expect("weights lent for decoding have strips");
        strips.add_product([self.n_in, self.n_out], x, out);
    }

    /// Rounds the matrix to bf16 and packs it for the forward product, and with `gradients` also
    /// for the product of the input's gradient.
    pub(super) fn pack(&mut self, mut packed: [PackedRight; 2], gradients: bool) {
        packed[0].pack(self.matrix, self.n_in, self.n_out);
        if gradients {
            packed[1].pack(self.matrix.transposed(), self.n_out, self.n_in);
        }
        self.packed = Some(packed);
    }

    /// Takes the packed forms out, to reuse their memory.
    pub(super) fn take_packed(&mut self) -> [PackedRight; 2] {
        self.packed.take().unwrap_or_default()
    }
}

/// Buffers for products, kept from one product to the next.
#[derive(Default)]
pub(super) struct Products {
    /// Logits of a chunk of rows.
    pub(super) logits: Vec<f32>,
    left: LeftBuffer,
    right: PackedRight,
    pub(super) bf16: bool,
}

impl Products {
    /// Computes `out (+)= x W` for rows x.
    pub(super) fn forward(&mut self, w: &Weight<'_>, x: &[f32], out: &mut [f32], store: Store) {
        let (sizes, x) = ([x.len() / w.n_in, w.n_out, w.n_in], Matrix::rows(x, w.n_in));
        match &w.packed {
            Some([forward, _]) => {
                bf16::product(sizes, x, forward, out, w.n_out, store, &mut self.left)
            }
            None => gemm::product(sizes, x, w.matrix, out, w.n_out, store, 1.0),
        }
    }

    /// Computes `dx = dout Wᵀ` for rows dout.
    pub(super) fn backward(&mut self, w: &Weight<'_>, dout: &[f32], dx: &mut [f32]) {
        let sizes = [dout.len() / w.n_out, w.n_in, w.n_out];
        let (dout, store) = (Matrix::rows(dout, w.n_out), Store::Overwrite);
        match &w.packed {
            Some([_, backward]) => {
                bf16::product(sizes, dout, backward, dx, w.n_in, store, &mut self.left)
            }
            None => gemm::product(sizes, dout, w.matrix.transposed(), dx, w.n_in, store, 1.0),
        }
    }

    /// Computes `dw += xᵀ dout` for rows x (R, in) and dout (R, out), with dw stored (in, out).
    pub(super) fn weight_gradient(
        &mut self,
        [n_in, n_out]: [usize; 2],
        x: &[f32],
        dout: &[f32],
        dw: &mut [f32],
    ) {
        let rows = x.len() / n_in;
        let (x, dout) = (Matrix::rows(x, n_in).transposed(), Matrix::rows(dout, n_out));
        if self.bf16 {
            self.right.pack(dout, rows, n_out);
            bf16::product(
                [n_in, n_out, rows],
                x,
                &self.right,
                dw,
                n_out,
                Store::Add,
                &mut self.left,
            );
        } else {
            gemm::product([n_in, n_out, rows], x, dout, dw, n_out, Store::Add, 1.0);
        }
    }
}
