//! A program without `std` that uses `proto`. Its own panic handler clashes with the one of `std` as soon as anything
//! links it ("found duplicate lang item `panic_impl`"); `cargo xtask test` checks that it does not.

#![no_std]

use proto::accumulator::{Accumulator, Fed};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Takes frames apart in a buffer of its own, without an allocator.
pub fn payload_bytes(buffer: &mut [u8; 512], bytes: &[u8]) -> Option<usize> {
    match Accumulator::new(buffer).feed(bytes) {
        Fed::Frame { payload, .. } => Some(payload.len()),
        Fed::NeedMore | Fed::Discarded { .. } => None,
    }
}
