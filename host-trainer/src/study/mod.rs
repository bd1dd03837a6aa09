//! The paper's experiments (VI) as one study for any data set: which runs there are (`plan`), their
//! results (`results`), and how these are shown (`figure`, `page`). The command does the runs.

mod figure;
mod page;
mod plan;
mod results;

pub use figure::{normal_scores, png, scores};
pub use page::html;
pub use plan::{Experiment, Job, SETTINGS, Setting, jobs, plan};
pub use results::{Results, ResultsError, RunResult};
