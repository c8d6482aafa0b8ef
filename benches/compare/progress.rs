//! A bar where there is a terminal, plain lines where there is none.

use std::io::IsTerminal;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

pub struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
    rows: usize,
}

impl Progress {
    pub fn new(rows: usize) -> Self {
        // No tick of its own: a thread that wakes up would be measured with the rest.
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(rows as u64);
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}")
            {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, began: Instant::now(), rows }
    }

    /// For a child, whose output is not for people.
    pub fn silent() -> Self {
        Self { bar: None, began: Instant::now(), rows: 0 }
    }

    pub fn begin(&self, at: usize, row: &str) {
        match &self.bar {
            Some(bar) => {
                bar.set_message(row.to_owned());
                bar.set_position(at as u64);
            }
            None => {
                let seconds = self.began.elapsed().as_secs();
                println!("[{}/{}, {seconds} s] {row}", at + 1, self.rows);
            }
        }
    }

    /// Shown by the bar only.
    pub fn now(&self, row: &str, contestant: &str, round: usize, rounds: usize) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{row}: {contestant}, round {round}/{rounds}"));
        }
    }

    /// Text that stays.
    pub fn print(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| println!("{text}")),
            None => println!("{text}"),
        }
    }

    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
