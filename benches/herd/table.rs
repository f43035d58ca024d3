//! Tables for people, and the same figures in JSON.

use std::path::Path;

use serde_json::{Map, Value, json};

/// The tables so far.
#[derive(Default)]
pub struct Report {
    tables: Map<String, Value>,
}

/// A table under way: printed row by row.
pub struct Table<'a> {
    report: &'a mut Report,
    title: String,
    columns: Vec<&'static str>,
    rows: Vec<Value>,
}

impl Report {
    /// Begins a table.
    pub fn table(&mut self, title: &str, columns: &[&'static str]) -> Table<'_> {
        println!("\n{title}");
        for column in columns {
            print!("{column:>16}");
        }
        println!();
        Table { report: self, title: title.to_owned(), columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Writes them down.
    pub fn save(&self) {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("herd.json");
        let text = serde_json::to_string_pretty(&self.tables).expect("it can be written");
        std::fs::write(&path, text).expect("the build folder can be written to");
        println!("\nwritten to {}", path.display());
    }
}

impl Table<'_> {
    /// Prints a row: a figure for each column.
    pub fn row(&mut self, figures: &[f64]) {
        assert_eq!(figures.len(), self.columns.len(), "a figure for each column");
        for figure in figures {
            match figure.abs() {
                large if large >= 100.0 || figure.fract() == 0.0 => print!("{figure:>16.0}"),
                middle if middle >= 10.0 => print!("{figure:>16.1}"),
                _ => print!("{figure:>16.2}"),
            }
        }
        println!();
        let row: Map<String, Value> =
            self.columns.iter().zip(figures).map(|(column, figure)| ((*column).to_owned(), json!(figure))).collect();
        self.rows.push(row.into());
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        self.report.tables.insert(std::mem::take(&mut self.title), std::mem::take(&mut self.rows).into());
    }
}
