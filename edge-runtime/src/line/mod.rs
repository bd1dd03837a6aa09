//! The line between trigger and reject gate: parts, conveyor position, readiness and outputs.

pub mod confirm;
pub mod conveyor;
pub mod liveness;
pub mod outputs;
pub mod pairing;
pub mod parts;
pub mod readiness;
pub mod shared;
pub mod silence;
pub mod square_wave;
