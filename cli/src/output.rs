//! What goes to standard output, and how: text for people, or the server's answer as JSON or YAML.

use crate::failure::Failure;
use serde_json::Value;
use std::io::{ErrorKind, Write};

/// Where `--help` lists the options that every command has.
pub const GLOBAL: &str = "Options of all commands";

/// How answers are printed.
#[derive(clap::Args, Clone, Copy)]
pub struct Output {
    /// How to print answers: table, wide (more columns), json or yaml (the server's answer)
    #[arg(
        short = 'o',
        long = "output",
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t = Format::Table,
        hide_possible_values = true,
        help_heading = GLOBAL
    )]
    format: Format,
}

/// A form of output.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// Tables and lines for people
    Table,
    /// The same with more columns
    Wide,
    /// The server's answer
    Json,
    /// The server's answer as YAML
    Yaml,
}

impl Output {
    /// Whether tables have all their columns.
    pub fn is_wide(self) -> bool {
        self.format == Format::Wide
    }

    /// Whether the server's answer was asked for as it is.
    pub fn is_data(self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    /// Prints an answer: whole where data was asked for, else as this text.
    pub fn answer(self, answer: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table | Format::Wide => print(&text()),
            Format::Json | Format::Yaml => self.data(answer),
        }
    }

    /// Prints an answer whole: as JSON, unless YAML was asked for.
    pub fn data(self, answer: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Yaml => print(&yaml(answer)?),
            _ => print(&format!("{answer:#}")),
        }
    }
}

fn yaml(value: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(value).map_err(|error| Failure::Usage(format!("write the answer as YAML: {error}")))
}

/// Prints a text and, where it has none, the end of its line; nothing for an empty one.
pub fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(|_| ())
}

/// The same; says whether whoever reads may want more.
pub fn print_on(text: &str) -> Result<bool, Failure> {
    if text.is_empty() {
        return Ok(true);
    }
    let end = if text.ends_with('\n') { "" } else { "\n" };
    match write!(std::io::stdout().lock(), "{text}{end}") {
        // Whoever reads has seen enough: `vmyard vm list | head -1`.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Usage(format!("standard output: {error}"))),
        Ok(()) => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::yaml;
    use serde_json::{Value, json};

    #[test]
    fn yaml_reads_back_as_the_same() {
        let strings = [
            "",
            " ",
            "no",
            "~",
            "null",
            "true",
            "1",
            "1.0",
            "1e3",
            "0x1f",
            "012",
            "0o7",
            ".inf",
            "2026-11-24",
            "2026-11-24T18:36:26.660Z",
            "- a",
            "a: b",
            "a #b",
            "#a",
            "'",
            "\"",
            "\\",
            "two\nlines",
            "two\nlines\n",
            "\n",
            " lead\n  more\n",
            "tab\t",
            "<<",
            "=",
            "*a",
            "&a",
            "!a",
            "@a",
            "%a",
            "[a",
            "{a",
            "ünï",
            "\u{1b}[31m",
            "<domain type='kvm'>\n  <name>a</name>\n</domain>\n",
            "trailing ",
            "a\r\nb",
            "52:54:00:9c:3e:02",
            "1:20",
        ];
        for text in strings {
            let value = json!({ "text": text, "list": [text, { "in": text }], text: 1 });
            let written = yaml(&value).unwrap();
            let read: Value = serde_saphyr::from_str(&written).unwrap_or_else(|error| panic!("{error}:\n{written}"));
            assert_eq!(read, value, "{written}");
        }
        let value =
            json!({"a": null, "b": [], "c": {}, "d": 18_446_744_073_709_551_615_u64, "e": 0.5, "f": [[1], [true]]});
        assert_eq!(serde_saphyr::from_str::<Value>(&yaml(&value).unwrap()).unwrap(), value);
    }
}
