//! The threads of the stages and the queues between them: what runs where, and what happens when a
//! thread fails.
//!
//! ```text
//! source ─ capture thread ─→ slot ─→ scoring threads ─→ report queue ─→ report thread
//!              │ part begins            │ part decided
//! trigger ─────┴──→ LineShared (parts) ←┘──→ gate thread ─→ reject, busy, ready, fault outputs
//! ```
//! Every part that begins is reported exactly once, by the thread that settles it: a scoring
//! thread, the capture thread (frame evicted, damaged or lost) or the gate thread (no frame in
//! time).

pub mod capture;
pub mod context;
pub mod early;
pub mod gate;
mod hang;
pub mod input;
pub mod plausibility;
pub mod score;
pub mod slot;
pub mod supervise;
