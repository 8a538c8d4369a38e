//! What people read, made to fit where they read it: on a terminal no line is wider than it, in a pipe every line is whole.

use std::{
    fmt::Write,
    io::{self, IsTerminal},
};

use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width, presets};
use textwrap::{Options, WordSplitter};

/// The widest cell on a terminal: a reason fits, and text of others does not push all else away.
const CELL_CHARS_MAX: usize = 300;

/// Longest word that a column has room for: a chunk's name.
const WORD_CHARS_MAX: usize = 32;

/// What a word is cut into where that would cost a column that matters.
const PIECE_CHARS_MIN: usize = 10;

/// From this rank on a column is worth less than a whole word.
const SPARE_RANK: u8 = 2;

/// Spaces around each cell.
const PADDING: usize = 2;

/// Where the values of named lines begin.
const VALUE_AT: usize = 17;

/// A terminal that is narrower has no room to keep values in their column.
const VALUE_COLUMN_MIN: usize = 60;

/// Width and height where the terminal tells none.
const USUAL: (usize, usize) = (80, 24);

/// Where something is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Screen {
    /// Columns and rows of the terminal; `None` in a pipe.
    size: Option<(usize, usize)>,
}

impl Screen {
    /// No terminal.
    pub(super) const PIPE: Self = Self { size: None };

    /// Looks where stdout goes.
    pub(super) fn of_stdout() -> Self {
        let size = io::stdout().is_terminal().then(|| {
            let told = rustix::termios::tcgetwinsize(io::stdout()).ok();
            let told = told.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
            told.filter(|(columns, rows)| *columns > 0 && *rows > 0).unwrap_or(USUAL)
        });
        Self { size }
    }

    /// Tells whether it is a terminal.
    pub(super) const fn is_terminal(self) -> bool {
        self.size.is_some()
    }

    /// Folds lines of words.
    pub(super) fn lines(self, text: &str) -> String {
        self.indented(text, 2)
    }

    /// Folds lines of words, and what is folded begins further right.
    pub(super) fn indented(self, text: &str, indent: usize) -> String {
        let Some((columns, _)) = self.size else { return text.to_owned() };
        text.lines().map(|line| fold(line, columns, "", &" ".repeat(indent))).collect::<Vec<_>>().join("\n")
    }

    /// Shows values behind their names.
    pub(super) fn named(self, values: &[(&str, String)]) -> String {
        let mut out = String::new();
        for (name, value) in values {
            let head = format!("{name:<16} ");
            match self.size {
                None => writeln!(out, "{head}{value}").ok(),
                Some((columns, _)) => {
                    let indent = if columns < VALUE_COLUMN_MIN { 4 } else { VALUE_AT };
                    writeln!(out, "{}", fold(value, columns, &head, &" ".repeat(indent))).ok()
                }
            };
        }
        out.truncate(out.trim_end().len());
        out
    }

    /// Cuts what is below the terminal's last row, so that it does not scroll when it is drawn in place.
    pub(super) fn cut(self, text: &str) -> String {
        let rows = self.size.map_or(usize::MAX, |(_, rows)| rows.saturating_sub(1));
        text.lines().take(rows).collect::<Vec<_>>().join("\n")
    }
}

fn fold(line: &str, columns: usize, first: &str, others: &str) -> String {
    let options = Options::new(columns).initial_indent(first).subsequent_indent(others);
    textwrap::fill(line, options.word_splitter(WordSplitter::NoHyphenation))
}

/// Makes text of others fit to be shown: control characters would reach the terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// A table whose least important columns are left out where a terminal is too narrow for all.
pub(super) struct Grid {
    /// Titles with ranks: the highest is left out first, and 0 never.
    head: Vec<(&'static str, u8)>,
    rows: Vec<Vec<String>>,
}

impl Grid {
    /// Begins a table with these columns.
    pub(super) fn new(head: &[(&'static str, u8)]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; cells that are missing are empty.
    pub(super) fn row(&mut self, mut cells: Vec<String>) {
        cells.resize(self.head.len(), String::new());
        self.rows.push(cells);
    }

    /// Tells whether it has no row.
    pub(super) const fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// How wide a column is where nothing is folded.
    fn width(&self, column: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].as_str()).chain([self.head[column].0]);
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default() + PADDING
    }

    /// What a column needs so that words of so many letters are whole.
    fn need(&self, column: usize, word_chars_max: usize) -> usize {
        let cells = self.rows.iter().map(|row| row[column].as_str()).chain([self.head[column].0]);
        let words = cells.flat_map(str::split_whitespace).map(|word| word.chars().count());
        words.max().unwrap_or_default().min(word_chars_max) + PADDING
    }

    /// Returns the columns that fit, each with what it needs: empty ones go before anything is folded, spare ones before
    /// words are cut, all others after.
    fn fitting(&self, columns: usize) -> Vec<(usize, usize)> {
        let is_empty = |column: usize| self.rows.iter().all(|row| row[column].is_empty());
        let rank = |column: usize| self.head[column].1;
        let mut all: Vec<usize> = (0..self.head.len()).collect();
        if all.iter().map(|column| self.width(*column)).sum::<usize>() > columns {
            all.retain(|column| rank(*column) == 0 || !is_empty(*column));
        }
        for (word_chars_max, rank_min) in [(WORD_CHARS_MAX, SPARE_RANK), (PIECE_CHARS_MIN, 1)] {
            let mut kept = all.clone();
            loop {
                let needs: Vec<_> = kept.iter().map(|column| (*column, self.need(*column, word_chars_max))).collect();
                if needs.iter().map(|(_, need)| need).sum::<usize>() <= columns {
                    return needs;
                }
                let droppable = kept.iter().copied().filter(|column| rank(*column) >= rank_min);
                let Some(least) = droppable.max_by_key(|column| rank(*column)) else { break };
                kept.retain(|column| *column != least);
            }
        }
        all.into_iter().filter(|column| rank(*column) == 0).map(|column| (column, 0)).collect()
    }

    /// Shows it.
    pub(super) fn show(&self, screen: Screen) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        let kept = match screen.size {
            None => (0..self.head.len()).map(|column| (column, 0)).collect(),
            Some((columns, _)) => {
                table.set_content_arrangement(ContentArrangement::Dynamic).set_width(narrowed(columns));
                self.fitting(columns)
            }
        };
        table.set_header(kept.iter().map(|(column, _)| self.head[*column].0.to_uppercase()).collect::<Vec<_>>());
        for (place, (_, need)) in kept.iter().enumerate().filter(|(_, (_, need))| *need > 0) {
            if let Some(column) = table.column_mut(place) {
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(narrowed(*need))));
            }
        }
        let cell = |text: &String| match screen.is_terminal() && text.chars().nth(CELL_CHARS_MAX).is_some() {
            true => text.chars().take(CELL_CHARS_MAX).chain(['…']).collect(),
            false => text.clone(),
        };
        for row in &self.rows {
            table.add_row(kept.iter().map(|(column, _)| cell(&row[*column])).collect::<Vec<_>>());
        }
        table.trim_fmt()
    }
}

fn narrowed(columns: usize) -> u16 {
    u16::try_from(columns).unwrap_or(u16::MAX)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A terminal of so many columns; none is a pipe.
    pub(in crate::cli) fn screen(columns: Option<usize>) -> Screen {
        Screen { size: columns.map(|columns| (columns, 24)) }
    }

    /// Fails where a line is wider than the screen.
    pub(in crate::cli) fn fits(text: &str, columns: Option<usize>) {
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or_default();
        assert!(columns.is_none_or(|columns| widest <= columns), "{widest} of {columns:?}:\n{text}");
    }

    #[test]
    fn a_narrow_terminal_loses_the_least_important_columns_and_folds_the_rest() {
        let mut grid = Grid::new(&[("name", 0), ("state", 1), ("note", 3), ("reason", 2)]);
        grid.row(vec!["a".repeat(25), "ended".into(), String::new(), "the store gives no answer at all".into()]);
        for columns in [20, 30, 40, 80] {
            fits(&grid.show(screen(Some(columns))), Some(columns));
        }
        let narrow = grid.show(screen(Some(30)));
        assert!(narrow.contains("REASON") && narrow.contains("STATE") && !narrow.contains("NOTE"), "{narrow}");
        assert!(!grid.show(screen(Some(20))).contains("REASON"));
        let whole = grid.show(screen(Some(50)));
        assert!(whole.contains(&"a".repeat(25)) && !whole.contains("NOTE"), "an empty column is worth no cut: {whole}");
        let piped = grid.show(screen(None));
        assert_eq!(piped.lines().count(), 2, "one line a row: {piped}");
        assert!(piped.contains(&"a".repeat(25)) && piped.contains("the store gives no answer at all"));
    }

    #[test]
    fn words_are_folded_on_a_terminal_and_whole_in_a_pipe() {
        let text = "blocked: access_denied: grant this key s3:PutObject on bucket \"b\", or use another key";
        fits(&screen(Some(40)).lines(text), Some(40));
        assert_eq!(screen(None).lines(text), text);
        let values = [("safe", "NO".to_owned()), ("blocked", text.to_owned())];
        for columns in [40, 80] {
            fits(&screen(Some(columns)).named(&values), Some(columns));
        }
        assert_eq!(screen(None).named(&values), format!("safe             NO\nblocked          {text}"));
        assert_eq!(screen(Some(40)).cut(&"x\n".repeat(99)).lines().count(), 23);
    }
}
