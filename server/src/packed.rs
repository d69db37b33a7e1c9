//! Rows in a file: gzipped lines of JSON. The first one says what the file is, the last one how many there are between: a file that was
//! cut off is told by that, and one that was damaged by gzip's checksum.

use crate::{Error, Result, store::RawRow};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{BufRead, BufReader, Lines, Read, Write};

/// A line between the first and the last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// A row.
    Row(RawRow),
    /// The key of a row that is gone.
    Gone {
        /// In hexadecimal.
        gone: String,
    },
    /// The last line.
    End {
        /// How many lines there are before it, without the first.
        end: u64,
    },
}

/// Writes a file.
pub struct Writer<W: Write> {
    gzip: GzEncoder<W>,
    /// Lines after the first.
    pub lines: u64,
}

impl<W: Write> Writer<W> {
    /// Begins with the first line.
    pub fn new(to: W, head: &impl Serialize) -> Result<Writer<W>> {
        let mut writer = Writer { gzip: GzEncoder::new(to, Compression::fast()), lines: 0 };
        writer.write(&to_json(head)?)?;
        Ok(writer)
    }

    /// Adds a line.
    pub fn line(&mut self, line: &Line) -> Result<()> {
        self.json(&to_json(line)?)
    }

    /// Adds a line that is JSON already.
    pub fn json(&mut self, json: &[u8]) -> Result<()> {
        self.lines += 1;
        self.write(json)
    }

    /// Ends with the last line.
    pub fn finish(mut self) -> Result<W> {
        let end = to_json(&Line::End { end: self.lines })?;
        self.write(&end)?;
        self.gzip.finish().map_err(failed)
    }

    fn write(&mut self, json: &[u8]) -> Result<()> {
        self.gzip.write_all(json).and_then(|()| self.gzip.write_all(b"\n")).map_err(failed)
    }
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Internal(format!("write JSON: {error}")))
}

fn failed(error: std::io::Error) -> Error {
    Error::Internal(format!("pack rows: {error}"))
}

/// Reads a file.
pub struct Reader<R: Read> {
    lines: Lines<BufReader<GzDecoder<R>>>,
    read: u64,
    ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the first line; says why it is none.
    pub fn new<T: DeserializeOwned>(from: R) -> std::result::Result<(T, Reader<R>), String> {
        let mut reader = Reader { lines: BufReader::new(GzDecoder::new(from)).lines(), read: 0, ended: false };
        let head = reader.line()?;
        Ok((serde_json::from_str(&head).map_err(parsed)?, reader))
    }

    fn line(&mut self) -> std::result::Result<String, String> {
        match self.lines.next() {
            Some(Ok(line)) => Ok(line),
            Some(Err(error)) => Err(format!("it is damaged: {error}")),
            None => Err("it ends too early".to_owned()),
        }
    }

    fn read(&mut self) -> std::result::Result<Option<Line>, String> {
        let line = self.line()?;
        match serde_json::from_str(&line).map_err(parsed)? {
            Line::End { end } if end == self.read => {}
            Line::End { end } => return Err(format!("it has {} lines of {end}", self.read)),
            line => {
                self.read += 1;
                return Ok(Some(line));
            }
        }
        // The checksum comes last, and is looked at where the lines end.
        match self.lines.next() {
            None => Ok(None),
            Some(Ok(_)) => Err("something follows its end".to_owned()),
            Some(Err(error)) => Err(format!("it is damaged: {error}")),
        }
    }
}

/// The lines between the first and the last. An error is the last that it gives.
impl<R: Read> Iterator for Reader<R> {
    type Item = std::result::Result<Line, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let read = self.read().transpose();
        self.ended = !matches!(read, Some(Ok(_)));
        read
    }
}

fn parsed(error: serde_json::Error) -> String {
    format!("it has a line that can't be read: {error}")
}
