//! The program `host-trainer`; see `host-trainer --help`.

mod cmd;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Trains a model that finds surface defects, from defect-free images alone.
///
/// The usual way: fit, evaluate. In single steps: recommend, train, package, evaluate. Every command
/// explains itself with --help.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Fit(Box<cmd::fit::Fit>),
    Recommend(cmd::recommend::Recommend),
    Train(Box<cmd::train::Train>),
    Package(Box<cmd::package::Package>),
    Calibrate(cmd::calibrate::Calibrate),
    Evaluate(cmd::evaluate::Evaluate),
    Reproduce(Box<cmd::reproduce::Reproduce>),
    InspectPackage(cmd::inspect_package::InspectPackage),
    Keygen(cmd::keygen::Keygen),
    Pretrain(cmd::pretrain::Pretrain),
    Synth(cmd::synth::Synth),
    NoiseSheet(cmd::noise_sheet::NoiseSheet),
    ImportWeights(cmd::import_weights::ImportWeights),
    FetchWeights(cmd::fetch_weights::FetchWeights),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Fit(command) => command.run(),
        Command::Recommend(command) => command.run(),
        Command::Train(command) => command.run(),
        Command::Package(command) => command.run(),
        Command::Calibrate(command) => command.run(),
        Command::Evaluate(command) => command.run(),
        Command::Reproduce(command) => command.run(),
        Command::InspectPackage(command) => command.run(),
        Command::Keygen(command) => command.run(),
        Command::Pretrain(command) => command.run(),
        Command::Synth(command) => command.run(),
        Command::NoiseSheet(command) => command.run(),
        Command::ImportWeights(command) => command.run(),
        Command::FetchWeights(command) => command.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Cli;

    #[test]
    fn reference_is_current() {
        reference::check_command(Cli::command());
    }
}
