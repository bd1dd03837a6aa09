//! Access to hardware: GPIO lines.

pub mod gpio;
