//! From a settled part to its record: the queue behind scoring, the order of parts, pictures, drift
//! detection, and the report thread, which journals.

pub mod drift;
pub mod durable;
mod order;
pub mod pictures;
pub mod queue;
pub mod room;
pub mod thread;
