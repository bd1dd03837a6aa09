//! The camera put together: built from its configuration, watched while it runs, stopped in order.

mod build;
mod devices;
mod heartbeat;
mod inputs;
mod line;
mod link;
mod model;
mod running;
mod stop;
mod threads;
mod watchdog;

pub(crate) use devices::opener;
pub(crate) use link::write_endpoints;
pub(crate) use running::Camera;
