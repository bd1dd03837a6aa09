//! A crate without `std` that uses `proto`. It has its own panic handler, which clashes with that of
//! `std` ("found duplicate lang item `panic_impl`") as soon as `proto` or anything below it links
//! `std`. `cargo xtask test` checks that it compiles.

#![no_std]

use proto::accumulator::{Accumulator, Fed};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Decodes a frame in the caller's buffer, without an allocator. Returns the length of the payload.
pub fn payload_bytes(buffer: &mut [u8; 512], bytes: &[u8]) -> Option<usize> {
    match Accumulator::new(buffer).feed(bytes) {
        Fed::Frame { payload, .. } => Some(payload.len()),
        Fed::NeedMore | Fed::Discarded { .. } => None,
    }
}
