//! The messages between cameras and stations, and the manifest of a model package.
//!
//! In: nothing. Out: plain data types with a fixed encoding, and the frames that carry them. This
//! crate does no I/O and reads no clock. It builds without `std`, so that a microcontroller can
//! speak the protocol too; decoding frames ([`accumulator`]) needs no allocator.
//!
//! ```text
//! bytes → accumulator → payload → message::Message::decode → ToCamera | FromCamera
//!                               ↘ recovery::Request | Response (frozen)
//! ```
//!
//! | Module | Subject |
//! |---|---|
//! | [`frame`], [`accumulator`] | payloads to frames, and bytes back to payloads |
//! | [`message`] | what goes over a link in either direction |
//! | [`report`] | records: parts and events, as journalled and delivered |
//! | [`recovery`] | the frozen exchange that identifies, flashes and rolls back a camera |
//! | [`version`] | how two ends agree on a protocol version |
//! | [`manifest`] | what a model package says about its model |
//! | [`limits`] | upper bounds on lengths |
//! | [`name`] | checked names of files, stations and cameras |
//! | [`discovery`] | names for DNS-SD |
//!
//! # Evolution
//! Enums grow only at their end and fields are never added, removed or reordered, because postcard
//! encodes positions, not names. See [`message`] for the wire. A manifest grows at
//! its end; [`manifest::MANIFEST_FORMAT`] then rises, and a reader knows what the absence of a field
//! means.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod accumulator;
mod codec;
pub mod discovery;
pub mod frame;
pub mod limits;
pub mod manifest;
pub mod message;
pub mod name;
pub mod recovery;
pub mod report;
mod role;
mod text;
pub mod version;
