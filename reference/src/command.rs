//! The page of a program: description, usage and options of every command.

use clap::{Arg, Command};

use crate::markdown::{item, prose, sentence, wrapped};

/// Renders the page of a program.
pub(crate) fn page(mut command: Command) -> String {
    command.build();
    let mut out = format!("# {}\n\n{}", command.get_name(), description(&command));
    out += "\nEvery command has `--help`.\n\n";
    for subcommand in shown(&command) {
        let name = subcommand.get_name();
        let about = subcommand.get_about().map(ToString::to_string);
        let about = sentence(&about.unwrap_or_default());
        out += &item(&format!("[`{name}`](#{name}): {about}"), 0);
    }
    out += &options(&command, "Options of every command", |_| true);
    for subcommand in shown(&command) {
        out += &section(subcommand, subcommand.get_name(), 2);
    }
    out
}

/// The subcommands on the page: all but `help` and hidden ones.
fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    let subcommands = command.get_subcommands();
    subcommands.filter(|command| command.get_name() != "help" && !command.is_hide_set())
}

/// The section of a command, followed by those of its subcommands.
fn section(command: &Command, path: &str, level: usize) -> String {
    let mut out = format!("\n{} {path}\n\n{}", "#".repeat(level), description(command));
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage:");
    out += "\n```text\n";
    for line in usage.lines().filter(|line| !line.trim().is_empty()) {
        out += &wrapped(line, "", "    ");
    }
    out += "```\n";
    out += &options(command, "", |arg| !arg.is_global_set());
    let after = command.get_after_long_help().or(command.get_after_help());
    if let Some(after) = after {
        out += &format!("\n{}", prose(&after.to_string(), 0));
    }
    for subcommand in shown(command) {
        let path = format!("{path} {}", subcommand.get_name());
        out += &section(subcommand, &path, level + 1);
    }
    out
}

fn description(command: &Command) -> String {
    let about = command.get_long_about().or(command.get_about());
    let about = about.map(ToString::to_string).unwrap_or_default();
    prose(&sentence(&about), 0)
}

/// The list of arguments, positional ones first, under a heading if it is not empty.
fn options(command: &Command, heading: &str, is_wanted: impl Fn(&Arg) -> bool) -> String {
    let mut arguments: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && !matches!(arg.get_id().as_str(), "help" | "version"))
        .filter(|arg| is_wanted(arg))
        .collect();
    arguments.sort_by_key(|arg| !arg.is_positional());
    let items: String = arguments.into_iter().map(argument).collect();
    match (items.is_empty(), heading.is_empty()) {
        (true, _) => String::new(),
        (false, true) => format!("\n{items}"),
        (false, false) => format!("\n## {heading}\n\n{items}"),
    }
}

/// The list item of an argument.
fn argument(arg: &Arg) -> String {
    let takes_values = arg.get_action().takes_values();
    let mut text = match arg.get_short() {
        Some(short) => format!("`-{short}`, `{arg}`"),
        None => format!("`{arg}`"),
    };
    if arg.is_required_set() && !arg.is_positional() {
        text += " (required)";
    }
    let help = arg.get_long_help().or(arg.get_help());
    text += &format!(
        ": {}",
        sentence(&help.map(ToString::to_string).unwrap_or_default())
    );
    let default: Vec<String> = arg
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    if takes_values && !default.is_empty() && !arg.is_hide_default_value_set() {
        text += &format!(" Default: {}.", default.join(" "));
    }
    let choices = arg.get_possible_values();
    let choices: Vec<_> = choices
        .iter()
        .filter(|choice| !choice.is_hide_set())
        .collect();
    if !takes_values || choices.is_empty() {
        return item(&text, 0);
    }
    if choices.iter().all(|choice| choice.get_help().is_none()) {
        let names = choices
            .iter()
            .map(|choice| format!("`{}`", choice.get_name()));
        text += &format!(" One of {}.", names.collect::<Vec<_>>().join(", "));
        return item(&text, 0);
    }
    let mut out = item(&text, 0);
    for choice in choices {
        let help = choice.get_help().map(ToString::to_string);
        let help = sentence(&help.unwrap_or_default());
        out += &item(&format!("`{}`: {help}", choice.get_name()), 1);
    }
    out
}

#[cfg(test)]
mod tests {
    use clap::builder::PossibleValue;
    use clap::{ArgAction, value_parser};

    use super::*;

    #[test]
    fn a_page_has_every_command_with_its_options() {
        let mode = Arg::new("mode").long("mode").value_parser([
            PossibleValue::new("full").help("One pass"),
            PossibleValue::new("tiles"),
        ]);
        let count = Arg::new("count")
            .long("count")
            .short('c')
            .value_parser(value_parser!(u32))
            .default_value("7")
            .help("How many, instead of --mode");
        let machine = Arg::new("name")
            .long("name")
            .default_value("a machine's name")
            .hide_default_value(true);
        let json = Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .global(true)
            .help("Print JSON");
        let run = Command::new("run")
            .about("Run it")
            .after_help("Examples:\n  program run x")
            .arg(Arg::new("file").required(true).help("A file"))
            .args([mode, count, machine]);
        let list = Command::new("list").about("List them");
        let keys = Command::new("keys").about("Keys").subcommand(list);
        let program = Command::new("program")
            .about("Does it")
            .version("1")
            .arg(json)
            .subcommands([run, keys]);
        assert_eq!(
            page(program),
            "# program\n\nDoes it.\n\nEvery command has `--help`.\n\n\
             - [`run`](#run): Run it.\n- [`keys`](#keys): Keys.\n\n\
             ## Options of every command\n\n- `--json`: Print JSON.\n\n\
             ## run\n\nRun it.\n\n```text\nprogram run [OPTIONS] <file>\n```\n\n\
             - `<file>`: A file.\n\
             - `--mode <mode>`:\n  - `full`: One pass.\n  - `tiles`:\n\
             - `-c`, `--count <count>`: How many, instead of `--mode`. Default: `7`.\n\
             - `--name <name>`:\n\n\
             Examples:\n\n```sh\nprogram run x\n```\n\n\
             ## keys\n\nKeys.\n\n```text\nprogram keys [OPTIONS] [COMMAND]\n```\n\n\
             ### keys list\n\nList them.\n\n```text\nprogram keys list [OPTIONS]\n```\n"
        );
    }
}
