//! The active model and its replacement: slots on disk, transfer of packages, and the switch
//! between two frames.

pub mod active;
mod checked;
mod commands;
pub mod error;
pub mod incoming;
pub mod requirements;
pub mod settings;
pub mod slots;
pub mod startup;
pub mod store;
mod switch;
mod transfer;
pub mod update;
pub mod version;
