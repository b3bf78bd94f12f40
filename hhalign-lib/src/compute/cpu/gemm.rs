//! Matrix products over slices: f32 with the crate `gemm`, bf16 with [`crate::compute::cpu::bf16`].

use gemm::Parallelism;

/// A matrix in a slice: element (i, j) is at `i * row + j * column`.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) row: usize,
    pub(super) column: usize,
}

impl<'a> Matrix<'a> {
    /// Makes a matrix of contiguous rows of `width` numbers.
    pub(super) fn rows(data: &'a [f32], width: usize) -> Self {
        Self { data, row: width, column: 1 }
    }

    /// Returns the transpose, over the same memory.
    pub(super) fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }

    fn holds(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row + (columns - 1) * self.column < self.data.len()
    }
}

/// Whether a product overwrites its destination or adds to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Store {
    Overwrite,
    Add,
}

/// Computes `out (+)= scale · a b` in one thread, with a (m, k), b (k, n), and out in rows of
/// stride `out_row`.
#[allow(clippy::too_many_arguments)]
pub(super) fn product(
    [m, n, k]: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    out: &mut [f32],
    out_row: usize,
    store: Store,
    scale: f32,
) {
    assert!(a.holds(m, k) && b.holds(k, n), "a product reads outside its operands");
    assert!(
        m == 0 || n == 0 || (m - 1) * out_row + n <= out.len(),
        "a product writes outside its destination"
    );
    if m == 0 || n == 0 {
        return;
    }
    let step = |s: usize| isize::try_from(s).expect("a stride fits");
    // SAFETY: the assertions keep every access inside the three slices, and `out` is borrowed
    // mutably.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            step(out_row),
            store == Store::Add,
            a.data.as_ptr(),
            step(a.column),
            step(a.row),
            b.data.as_ptr(),
            step(b.column),
            step(b.row),
            1.0,
            scale,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}
