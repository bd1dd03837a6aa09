//! `edge-runtime`: see `edge-runtime --help`.

#![forbid(unsafe_code)]

mod cmd;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit code when a defect was found; a failure is 2.
const EXIT_NG: u8 = 1;
/// Exit code when something could not be done, so that no verdict stands for it.
const EXIT_FAILURE: u8 = 2;

/// The camera's program: scores surfaces with a model package.
///
/// Model packages are made by `host-trainer package`. Results go to standard output, everything else to standard
/// error. Exit codes: 0 nothing found, 1 a defect was found, 2 something failed.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Score(Box<cmd::score::Score>),
}

fn main() -> ExitCode {
    let Command::Score(score) = Cli::parse().command;
    match score.run() {
        Ok(cmd::score::Outcome::AllOk) => ExitCode::SUCCESS,
        Ok(cmd::score::Outcome::SomeNg) => ExitCode::from(EXIT_NG),
        Ok(cmd::score::Outcome::SomeFailed) => ExitCode::from(EXIT_FAILURE),
        Err(error) => {
            cmd::report(&error);
            ExitCode::from(EXIT_FAILURE)
        }
    }
}
