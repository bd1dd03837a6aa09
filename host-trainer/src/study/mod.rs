//! The paper's experiments (VI) as one study that any data set can be put through: what to run ([`plan`]), what came of it
//! ([`results`]), and how it looks ([`figure`], [`page`]). Running is the command's business.

mod figure;
mod page;
mod plan;
mod results;

pub use figure::{png, scores, strengths};
pub use page::html;
pub use plan::{Experiment, Job, SETTINGS, Setting, jobs, plan};
pub use results::{Results, ResultsError, Row};
