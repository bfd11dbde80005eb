//! A ledger that several authorities share, as rows that all of them see change in the same order.

use tokio::sync::watch;

/// A row: its name, and its value; `None`: there is none any more.
pub type Row = (String, Option<Vec<u8>>);

/// What others wrote.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// These rows, in the order in which they changed.
    Changed(Vec<Row>),
    /// All rows that there are: what was known before is no longer.
    All(Vec<Row>),
}

/// Rows that several authorities share. A write is made only on top of what its writer has seen, so that no two decisions contradict each other.
///
/// Errors are texts for people: the store cannot be reached, and whether a write was made is not known.
pub trait SharedRows: Send {
    /// What others wrote and was not given yet; the first time, all rows. Waits for nothing after that.
    ///
    /// # Errors
    /// When rows cannot be read.
    fn news(&mut self) -> Result<News, String>;

    /// As [`SharedRows::news`], and nothing that was written before this call is missing.
    ///
    /// # Errors
    /// When rows cannot be read.
    fn catch_up(&mut self) -> Result<News, String>;

    /// Writes these rows, all or none. `false`: nothing was written, since others wrote what was not given yet.
    ///
    /// # Errors
    /// When it is not known whether they are written.
    fn write(&mut self, rows: &[Row]) -> Result<bool, String>;

    /// Most rows of one write.
    fn rows_max(&self) -> usize;

    /// Changes whenever there is something new to be given.
    fn changes(&self) -> watch::Receiver<()>;
}
