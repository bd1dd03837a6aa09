//! The reference of `camera.toml` in the book, rendered from the configuration's types.
//!
//! In: the JSON schema of [`Config`] (keys, types, defaults, doc comments), the order of the keys
//! as serde knows it, and the limits that [`Config::limits`] checks. Out: a page of Markdown.

use std::collections::{BTreeMap, BTreeSet};

use reference::markdown::{item, prose};
use schemars::schema_for;
use serde_json::{Map, Value};

use super::Config;

/// The least that a configuration must have; limits do not depend on its values.
const SMALLEST: &str = "name = \"x\"\nstate = \"x\"\n[model]\ntrust = [\"x\"]\n\
    [capture]\nkind = \"replay\"\npath = \"x\"\n";

#[test]
fn reference_of_camera_toml_is_current() {
    reference::check("camera-toml.md", "edge-runtime", &Page::new().render());
}

type Schema = Map<String, Value>;

/// Renders the schema of the configuration.
struct Page {
    root: Schema,
    /// Allowed values by key.
    limits: BTreeMap<&'static str, String>,
    /// Keys of `limits` that were shown.
    shown: BTreeSet<&'static str>,
    /// Tables that several keys have in common, by title: described once, at the end.
    common: BTreeMap<String, (Schema, String)>,
    out: String,
}

impl Page {
    fn new() -> Self {
        let root = schema_for!(Config).to_value();
        let limits = Config::parse(SMALLEST).unwrap().limits();
        Self {
            root: root.as_object().unwrap().clone(),
            limits: limits
                .into_iter()
                .map(|limit| (limit.key, limit.expected))
                .collect(),
            shown: BTreeSet::new(),
            common: BTreeMap::new(),
            out: String::new(),
        }
    }

    fn render(mut self) -> String {
        let root = self.root.clone();
        self.out += &format!("# camera.toml\n\n{}", prose(text(&root, "description"), 0));
        self.out += "\nA file with every table is `docs/camera.toml` in the repository.\n\n";
        self.table(&root, "", &[]);
        for (title, (schema, header)) in std::mem::take(&mut self.common) {
            self.out += &format!(
                "\n## {title}\n\n{}\n",
                prose(text(&schema, "description"), 0)
            );
            self.keys(&schema, &header, &[], "");
        }
        let hidden: Vec<_> = self
            .limits
            .keys()
            .filter(|key| !self.shown.contains(*key))
            .collect();
        assert!(
            hidden.is_empty(),
            "limits of keys that do not exist: {hidden:?}"
        );
        self.out
    }

    /// The keys of a table and of the tables in it.
    fn table(&mut self, schema: &Schema, path: &str, fixed: &[(&str, &str)]) {
        let header = match path {
            "" => String::new(),
            path => format!("[{path}]\n"),
        };
        let tables = self.keys(schema, &header, fixed, path);
        for key in tables {
            let property = schema["properties"][&key].as_object().unwrap();
            let path = match path {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            let is_required = is_required(schema, &key);
            self.section(property, &path, is_required);
        }
    }

    /// The section of a table that is the value of a key.
    fn section(&mut self, property: &Schema, path: &str, is_required: bool) {
        let schema = self.resolved(property);
        let level = "#".repeat(2 + path.matches('.').count());
        self.out += &format!("\n{level} `[{path}]`\n\n");
        let necessity = if is_required { "Required. " } else { "" };
        let description = text(property, "description");
        self.out += &prose(&format!("{necessity}{description}"), 0);
        let Some(kinds) = schema.get("oneOf").and_then(Value::as_array) else {
            self.out += "\n";
            self.table(&schema, path, &[]);
            return;
        };
        let default = property.get("default").map(|default| &default["kind"]);
        for kind in kinds {
            let kind = kind.as_object().unwrap();
            let name = kind["properties"]["kind"]["const"].as_str().unwrap();
            let mut description = text(kind, "description").to_owned();
            if default.and_then(Value::as_str) == Some(name) {
                description += " This is the default.";
            }
            self.out += &format!("\n{level}# `[{path}]` with `kind = \"{name}\"`\n\n");
            self.out += &prose(&description, 0);
            let before = self.out.len();
            self.table(kind, path, &[("kind", name)]);
            if self.out.len() > before {
                self.out.insert(before, '\n');
            }
        }
    }

    /// One item for each key of a table, in the order of the source; returns the keys whose values
    /// are tables with a section of their own.
    fn keys(
        &mut self,
        schema: &Schema,
        header: &str,
        fixed: &[(&str, &str)],
        path: &str,
    ) -> Vec<String> {
        assert_eq!(
            schema["additionalProperties"], false,
            "{path} accepts unknown keys"
        );
        let mut tables = Vec::new();
        for key in keys_in_order(header, fixed) {
            let property = schema["properties"][&key].as_object().unwrap();
            let full_path = match path {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            let value = self.resolved(property);
            if value.contains_key("oneOf") && is_tagged(&value) || self.is_own_table(&value) {
                tables.push(key);
                continue;
            }
            let mut line = format!("`{key}`: {}", self.type_of(&value, &full_path));
            if let Some((limit, expected)) = self.limits.get_key_value(full_path.as_str()) {
                self.shown.insert(limit);
                line += &format!(", {expected}");
            }
            match property.get("default") {
                Some(Value::Null) | None if is_required(schema, &key) => line += " (required)",
                Some(Value::Null | Value::Object(_)) | None => {}
                Some(default) => line += &format!(", default `{default}`"),
            }
            line += &format!("\n\n{}", text(property, "description"));
            self.out += &item(&line, 0);
            for choice in choices(&value) {
                let name = &choice["const"];
                let description = text(choice, "description");
                self.out += &item(&format!("`{name}`: {description}"), 1);
            }
        }
        tables
    }

    /// Whether a value is a table that gets a section because nothing else has its type.
    fn is_own_table(&self, value: &Schema) -> bool {
        value.contains_key("properties") && !value.contains_key("title")
    }

    /// The type of a value, for people.
    fn type_of(&mut self, value: &Schema, path: &str) -> String {
        if let Some(title) = value.get("title").and_then(Value::as_str) {
            let common = || (value.clone(), format!("{}{{ ? = 0 }}\n", assignment(path)));
            self.common.entry(title.to_owned()).or_insert_with(common);
            let anchor = title.to_lowercase().replace(' ', "-");
            return format!("[{title}](#{anchor})");
        }
        if choices(value).next().is_some() {
            return "one of the strings below".to_owned();
        }
        if let Some(variants) = value.get("anyOf").and_then(Value::as_array) {
            let variants: Vec<String> = variants
                .iter()
                .map(|variant| self.resolved(variant.as_object().unwrap()))
                .map(|variant| self.alternative(&variant))
                .collect();
            return variants.join(", or ");
        }
        match value["type"].as_str().unwrap() {
            "array" => "array of strings".to_owned(),
            "object" => {
                let values = value["additionalProperties"].as_object().unwrap();
                let types = self.type_of(&self.resolved(values), path);
                format!("table of names and values: {types}")
            }
            "integer" if value.get("minimum") == Some(&Value::from(0)) => {
                let is_limited = self.limits.contains_key(path);
                let least = if is_limited { "" } else { ", at least 0" };
                format!("integer{least}")
            }
            other => other.to_owned(),
        }
    }

    /// One of several types of a value.
    fn alternative(&self, variant: &Schema) -> String {
        let names: Vec<String> = choices(variant)
            .map(|choice| format!("`{}`", choice["const"]))
            .collect();
        if names.is_empty() {
            let kind = variant["type"].as_str().unwrap();
            let description = text(variant, "description").trim_end_matches('.');
            format!("{kind} ({})", description.to_lowercase())
        } else {
            names.join(", ")
        }
    }

    /// The schema behind references and optional values.
    fn resolved(&self, schema: &Schema) -> Schema {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let name = reference.trim_start_matches("#/$defs/");
            return self.root["$defs"][name].as_object().unwrap().clone();
        }
        let is_null = |variant: &Value| variant["type"] == "null";
        match schema.get("anyOf").and_then(Value::as_array) {
            Some(variants) if variants.iter().any(is_null) => {
                let value = variants.iter().find(|variant| !is_null(variant)).unwrap();
                self.resolved(value.as_object().unwrap())
            }
            _ => {
                let mut schema = schema.clone();
                // An optional value has two types, `null` being the second.
                if let Some(first) = schema.get("type").and_then(|types| types.get(0)) {
                    let first = first.clone();
                    schema.insert("type".to_owned(), first);
                }
                schema
            }
        }
    }
}

fn text<'a>(schema: &'a Schema, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn is_required(schema: &Schema, key: &str) -> bool {
    let required = schema.get("required").and_then(Value::as_array);
    required.is_some_and(|required| required.iter().any(|name| name == key))
}

/// The choices of an enumeration of strings.
fn choices(schema: &Schema) -> impl Iterator<Item = &Schema> {
    let variants = schema.get("oneOf").and_then(Value::as_array);
    let variants = variants.into_iter().flatten().filter_map(Value::as_object);
    variants.filter(|variant| variant.contains_key("const"))
}

/// Whether a schema is a choice between tables that differ by their `kind`.
fn is_tagged(schema: &Schema) -> bool {
    choices(schema).next().is_none()
}

/// The header of a table and the assignment of one of its keys.
fn assignment(path: &str) -> String {
    match path.rsplit_once('.') {
        Some((table, key)) => format!("[{table}]\n{key} = "),
        None => format!("{path} = "),
    }
}

/// The keys of a table in the order of the source. JSON schemas sort them, but serde lists them in
/// this order when it refuses an unknown key.
fn keys_in_order(header: &str, fixed: &[(&str, &str)]) -> Vec<String> {
    let fixed: String = fixed
        .iter()
        .map(|(key, value)| format!("{key} = \"{value}\"\n"))
        .collect();
    let text = if header.contains('?') {
        header.to_owned()
    } else {
        format!("{header}{fixed}? = 0\n")
    };
    let text = text.replace('?', "unknown-key");
    let error = toml::from_str::<Config>(&text).unwrap_err();
    let message = error.message();
    assert!(message.starts_with("unknown field"), "{message} in {text}");
    let names = message.split('`').skip(1).step_by(2);
    names.skip(1).map(str::to_owned).collect()
}
