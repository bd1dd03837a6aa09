//! Texts and tables that the commands print.

mod evaluation;
mod evidence;
mod gain;
mod manifest;
mod promise;
mod recommendation;
mod weights;

pub(crate) use evaluation::evaluation_table;
pub(crate) use evidence::{evidence_in_words, mixture_in_words};
pub(crate) use gain::segmentation_gain;
pub(crate) use manifest::manifest_facts;
pub(crate) use promise::promise;
pub(crate) use recommendation::Recommendation;
pub(crate) use weights::imported_weights;
