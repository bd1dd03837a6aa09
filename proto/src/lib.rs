//! What cameras, stations and trainers say to each other, and what a model package says of itself.
//!
//! In: nothing. Out: plain data types with a fixed postcard encoding. This crate does no I/O, knows no
//! clock, and builds without `std` so that a microcontroller can speak it too.
//!
//! # Evolution
//! Enums grow only at their end and fields are never removed or reordered, because postcard encodes
//! positions, not names. A change that breaks this raises [`manifest::MANIFEST_FORMAT`].

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod limits;
pub mod manifest;
