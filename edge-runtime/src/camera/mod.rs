//! The camera put together: built from its configuration, watched while it runs, stopped in order.

mod build;
mod devices;
mod inputs;
mod line;
mod link;
mod listening;
mod model;
mod running;
mod stop;
mod threads;
mod watchdog;

pub(crate) use devices::opener;
pub(crate) use running::Camera;
