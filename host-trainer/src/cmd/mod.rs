//! The commands, one file each: arguments in, library calls, text out ([`text`]).

pub(crate) mod arguments;
pub(crate) mod calibrate;
pub(crate) mod evaluate;
pub(crate) mod fetch_weights;
pub(crate) mod fit;
pub(crate) mod import_weights;
pub(crate) mod inspect_package;
pub(crate) mod interrupt;
pub(crate) mod keygen;
pub(crate) mod keys;
pub(crate) mod noise_sheet;
pub(crate) mod notices;
pub(crate) mod openmp;
pub(crate) mod package;
pub(crate) mod pretrain;
pub(crate) mod progress;
pub(crate) mod recommend;
pub(crate) mod reproduce;
pub(crate) mod shell;
pub(crate) mod synth;
pub(crate) mod text;
pub(crate) mod threshold;
pub(crate) mod train;
