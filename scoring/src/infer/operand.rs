//! The operands of a matrix product and the type of its sums.

use tract_onnx::tract_core::internal::*;

/// Type of a product's operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operand {
    /// Summed in f32.
    F32,
    /// Summed in f16.
    F16,
    /// Summed in 32-bit integers, exactly.
    I8,
}

impl Operand {
    /// Type of the operands.
    pub(super) fn datum(self) -> DatumType {
        match self {
            Self::F32 => f32::datum_type(),
            Self::F16 => f16::datum_type(),
            Self::I8 => i8::datum_type(),
        }
    }

    /// Type of the sums.
    pub(super) fn sum(self) -> DatumType {
        match self {
            Self::F32 => f32::datum_type(),
            Self::F16 => f16::datum_type(),
            Self::I8 => i32::datum_type(),
        }
    }
}
