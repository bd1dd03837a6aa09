//! `edge-runtime`: see `edge-runtime --help`.

#![forbid(unsafe_code)]

mod camera;
mod cmd;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Exit code if a defect was found.
const EXIT_NG: u8 = 1;
/// Exit code if something failed, so that there is no verdict.
const EXIT_FAILURE: u8 = 2;

/// The camera's program: captures frames, scores them with a model package, drives the reject gate
/// and reports.
///
/// `host-trainer package` makes model packages. Results go to standard output, everything else to
/// standard error. Exit codes: 0 no defect was found, 1 a defect was found, 2 something failed.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Score(Box<cmd::score::Score>),
    Run(cmd::run::Run),
    Record(cmd::record::Record),
    Bench(cmd::bench::Bench),
    Pair(cmd::pair::Pair),
    Stations(cmd::pair::Stations),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Score(score) => score.run().map(|summary| match summary {
            cmd::score::Summary::AllOk => ExitCode::SUCCESS,
            cmd::score::Summary::SomeNg => ExitCode::from(EXIT_NG),
            cmd::score::Summary::SomeFailed => ExitCode::from(EXIT_FAILURE),
        }),
        Command::Run(run) => run.run().map(|()| ExitCode::SUCCESS),
        Command::Record(record) => record.run().map(|()| ExitCode::SUCCESS),
        Command::Bench(bench) => bench.run().map(|()| ExitCode::SUCCESS),
        Command::Pair(pair) => pair.run().map(|()| ExitCode::SUCCESS),
        Command::Stations(stations) => stations.run().map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        cmd::report(&error);
        ExitCode::from(EXIT_FAILURE)
    })
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
