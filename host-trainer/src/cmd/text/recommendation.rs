//! A recommendation of settings, as JSON or in words.

use host_trainer::dataset::Account;
use host_trainer::surface::{Advice, Surface};
use serde::Serialize;

/// Settings that suit a surface.
#[derive(Serialize)]
pub(crate) struct Recommendation {
    pub(crate) schema: u32,
    /// What was looked at.
    pub(crate) account: Account,
    pub(crate) surface: Surface,
    /// Settings of `host-trainer train`.
    pub(crate) settings: Vec<Advice>,
    /// Settings of `host-trainer package`.
    pub(crate) package: Vec<Advice>,
    pub(crate) warnings: Vec<String>,
    /// The command to train with.
    pub(crate) command: String,
}

impl Recommendation {
    /// The settings in words. `photographs` says whether the features chosen come from a network
    /// trained on photographs; if not, the text suggests such a network.
    pub(crate) fn in_words(&self, photographs: bool) -> String {
        let Surface {
            images,
            width_px,
            height_px,
            ..
        } = self.surface;
        let mut text = format!("{images} good images of {width_px}×{height_px} px\n");
        for advice in &self.settings {
            text += &format!("  {:<27} {}\n", advice.argument(), advice.why);
        }
        for advice in &self.package {
            let setting = format!("package {}", advice.argument());
            text += &format!("  {setting:<27} {}\n", advice.why);
        }
        for warning in &self.warnings {
            text += &format!("note: {warning}\n");
        }
        text += &format!("\n{}\n", self.command);
        if !photographs {
            text += "with --features FILE (host-trainer fetch-weights --out FILE): features of a network trained on ImageNet often find more";
        }
        text
    }
}
