//! What cameras, stations and trainers say to each other, and what a model package says of itself.
//!
//! In: nothing. Out: plain data types with a fixed encoding, and the frames that carry them. This crate does no I/O,
//! knows no clock, and builds without `std` so that a microcontroller can speak it too; taking frames apart
//! ([`accumulator`]) needs no allocator.
//!
//! ```text
//! bytes → accumulator → payload → message::Message::decode → ToCamera | FromCamera
//!                               ↘ recovery::Request | Response (frozen)
//! ```
//!
//! # Evolution
//! Enums grow only at their end and fields are never added, removed or reordered, because postcard encodes
//! positions, not names. See [`message`] for the wire and [`manifest::MANIFEST_FORMAT`] for packages.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod accumulator;
pub mod frame;
pub mod limits;
pub mod manifest;
pub mod message;
pub mod recovery;
pub mod report;
pub mod version;
