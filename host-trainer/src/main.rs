//! `host-trainer`: see `host-trainer --help`.

mod cmd;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Trains a model for finding surface defects from defect-free images alone.
///
/// The usual order: train, package, evaluate. Every command explains itself with --help.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(cmd::train::Train),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Train(train) => train.run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
