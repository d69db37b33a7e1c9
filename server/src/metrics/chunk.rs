//! Samples in few bytes: for each series the differences from one sample to the next, as numbers of variable length, and all of it
//! deflated. A chunk is what the database keeps; a head is one that still grows, in memory.
//!
//! A number is 0 for "no sample", else 1 more than the zigzag of the difference from the last number that there was.

use super::series::{Key, Metric, Point};
use flate2::{Compression, read::DeflateDecoder, write::DeflateEncoder};
use serde::{Deserialize, Serialize};
use std::{
    io::{Read, Write},
    sync::Arc,
};

/// The most that a chunk is unpacked to: a damaged one must not take all memory.
const UNPACKED: u64 = 16 << 20;

/// The numbers of one series.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Column {
    last: i64,
    bytes: Vec<u8>,
}

impl Column {
    fn push(&mut self, value: Option<i64>) {
        let code = match value {
            None => 0,
            Some(value) => {
                let difference = value.wrapping_sub(self.last);
                self.last = value;
                // The one number that has no successor is no difference of two that occur.
                (difference.wrapping_shl(1) ^ (difference >> 63)).cast_unsigned().saturating_add(1)
            }
        };
        // A Vec takes everything.
        self.bytes = postcard::to_extend(&code, std::mem::take(&mut self.bytes)).unwrap_or_default();
    }
}

/// Reads a column; `None` when it is damaged.
fn numbers(mut bytes: &[u8], count: usize) -> Option<Vec<Option<i64>>> {
    let mut last = 0_i64;
    let mut out = Vec::with_capacity(count.min(bytes.len()));
    while !bytes.is_empty() {
        let (code, rest) = postcard::take_from_bytes::<u64>(bytes).ok()?;
        bytes = rest;
        out.push(code.checked_sub(1).map(|zigzag| {
            let difference = (zigzag >> 1).cast_signed() ^ -((zigzag & 1).cast_signed());
            last = last.wrapping_add(difference);
            last
        }));
    }
    (out.len() == count).then_some(out)
}

/// The samples of one VM since its last chunk.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// How many.
    count: usize,
    first_s: i64,
    last_s: i64,
    times: Column,
    columns: Vec<(Key, Column)>,
}

/// Samples of one VM, packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The earliest time in it, in seconds since the Unix epoch.
    pub first_s: i64,
    /// The latest.
    pub last_s: i64,
    /// How it is kept.
    pub data: Vec<u8>,
}

/// What a series tells of the time that a sample stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stat {
    /// The average; of raw samples it is all there is.
    Average = 0,
    /// The least.
    Least = 0x40,
    /// The most.
    Most = 0x80,
}

impl Stat {
    /// Figure and what is told of it, from one byte.
    fn of(code: u8) -> Option<(Metric, Stat)> {
        let stat = match code & 0xc0 {
            0 => Stat::Average,
            0x40 => Stat::Least,
            0x80 => Stat::Most,
            _ => return None,
        };
        Some((Metric::of(code & 0x3f)?, stat))
    }
}

/// How the bytes of a chunk are laid out before they are deflated (`postcard`).
#[derive(Serialize, Deserialize)]
struct Layout {
    count: u32,
    times: Vec<u8>,
    /// Figure with what is told of it, part, numbers.
    columns: Vec<(u8, Option<String>, Vec<u8>)>,
}

/// Samples, unpacked.
#[derive(Debug, Default)]
pub struct Samples {
    /// In seconds since the Unix epoch.
    pub times: Vec<i64>,
    /// As many numbers in each as there are times.
    pub columns: Vec<(Key, Stat, Vec<Option<i64>>)>,
}

impl Samples {
    /// Packed; `None` when there are none.
    pub fn to_chunk(&self) -> Option<Chunk> {
        let pack_all = |values: &mut dyn Iterator<Item = Option<i64>>| {
            let mut column = Column::default();
            values.for_each(|value| column.push(value));
            column.bytes
        };
        let columns = self.columns.iter().map(|(key, stat, values)| {
            let code = key.metric as u8 | *stat as u8;
            (code, key.part.as_deref().map(str::to_owned), pack_all(&mut values.iter().copied()))
        });
        let layout = Layout {
            count: self.times.len().try_into().unwrap_or(u32::MAX),
            times: pack_all(&mut self.times.iter().copied().map(Some)),
            columns: columns.collect(),
        };
        let (first_s, last_s) = (*self.times.iter().min()?, *self.times.iter().max()?);
        Some(Chunk { first_s, last_s, data: pack(&layout) })
    }
}

impl Head {
    /// How many samples there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The time of the first one.
    pub fn first_s(&self) -> i64 {
        self.first_s
    }

    /// The time of the last one.
    pub fn last_s(&self) -> i64 {
        self.last_s
    }

    /// Takes in what was read at a time. A series that is new has had no sample until now.
    pub fn push(&mut self, at_s: i64, point: &Point) {
        if self.count == 0 {
            (self.first_s, self.last_s) = (at_s, at_s);
        }
        (self.first_s, self.last_s) = (self.first_s.min(at_s), self.last_s.max(at_s));
        self.times.push(Some(at_s));
        for (key, _) in point {
            if !self.columns.iter().any(|(known, _)| known == key) {
                let empty = Column { last: 0, bytes: vec![0; self.count] };
                self.columns.push((key.clone(), empty));
            }
        }
        for (key, column) in &mut self.columns {
            column.push(point.iter().find(|(found, _)| found == key).map(|(_, value)| *value));
        }
        self.count += 1;
    }

    /// Packed.
    pub fn to_chunk(&self) -> Chunk {
        let layout = Layout {
            count: self.count.try_into().unwrap_or(u32::MAX),
            times: self.times.bytes.clone(),
            columns: self
                .columns
                .iter()
                .map(|(key, column)| (key.metric as u8, key.part.as_deref().map(str::to_owned), column.bytes.clone()))
                .collect(),
        };
        Chunk { first_s: self.first_s, last_s: self.last_s, data: pack(&layout) }
    }

    /// Unpacked.
    pub fn samples(&self) -> Option<Samples> {
        let times = numbers(&self.times.bytes, self.count)?.into_iter().flatten().collect();
        let columns = self
            .columns
            .iter()
            .map(|(key, column)| Some((key.clone(), Stat::Average, numbers(&column.bytes, self.count)?)));
        Some(Samples { times, columns: columns.collect::<Option<_>>()? })
    }
}

/// Unpacks a chunk; `None` when it is damaged. What a later version has added is left out.
pub fn unpack(data: &[u8]) -> Option<Samples> {
    let layout: Layout = unpack_as(data)?;
    let count = layout.count as usize;
    let times: Vec<i64> = numbers(&layout.times, count)?.into_iter().flatten().collect();
    if times.len() != count {
        return None;
    }
    let mut columns = Vec::with_capacity(layout.columns.len());
    for (code, part, bytes) in layout.columns {
        let Some((metric, stat)) = Stat::of(code) else { continue };
        columns.push((Key { metric, part: part.map(Arc::from) }, stat, numbers(&bytes, count)?));
    }
    Some(Samples { times, columns })
}

/// Serialised and deflated.
pub(super) fn pack(value: &impl Serialize) -> Vec<u8> {
    // Neither a Vec nor a type of ours fails.
    let plain = postcard::to_allocvec(value).unwrap_or_default();
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    let _ = encoder.write_all(&plain);
    encoder.finish().unwrap_or_default()
}

/// The other way; `None` when it is damaged.
pub(super) fn unpack_as<T: for<'a> Deserialize<'a>>(data: &[u8]) -> Option<T> {
    let mut plain = Vec::new();
    DeflateDecoder::new(data).take(UNPACKED).read_to_end(&mut plain).ok()?;
    postcard::from_bytes(&plain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let cpu = Key::whole(Metric::CpuPercent);
        let disk = |device| Key::part(Metric::DiskReadBytes, device);
        let mut head = Head::default();
        head.push(1000, &vec![(cpu.clone(), 1250)]);
        // A disk comes, the CPU's sample is missing.
        head.push(1010, &vec![(disk("vda"), i64::MAX / 2)]);
        // The clock is set back.
        head.push(500, &vec![(cpu.clone(), -3), (disk("vda"), 0)]);
        assert_eq!((head.first_s(), head.last_s(), head.count()), (500, 1010, 3));
        let unpacked = unpack(&head.to_chunk().data).unwrap();
        for samples in [unpacked, head.samples().unwrap()] {
            assert_eq!(samples.times, [1000, 1010, 500]);
            assert_eq!(samples.columns[0], (cpu.clone(), Stat::Average, vec![Some(1250), None, Some(-3)]));
            assert_eq!(samples.columns[1], (disk("vda"), Stat::Average, vec![None, Some(i64::MAX / 2), Some(0)]));
            assert_eq!(unpack(&samples.to_chunk().unwrap().data).unwrap().columns, samples.columns);
        }
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let mut head = Head::default();
        for at in 0..60 {
            head.push(at, &vec![(Key::whole(Metric::CpuPercent), at * 7919 % 101)]);
        }
        let whole = head.to_chunk().data;
        for length in 0..whole.len() {
            let _ = unpack(&whole[..length]);
            let mut flipped = whole.clone();
            flipped[length] ^= 0x55;
            let _ = unpack(&flipped);
        }
        assert!(unpack(&[]).is_none());
    }

    #[test]
    fn few_bytes() {
        let mut head = Head::default();
        for at in 0..60 {
            let part = |metric, value| (Key::part(metric, "vda"), value);
            let point = vec![
                (Key::whole(Metric::CpuPercent), 300 + at * 7919 % 40),
                part(Metric::DiskReadBytes, at * 7919 % 50_000),
                part(Metric::DiskWriteBytes, 0),
            ];
            head.push(1_700_000_000 + at * 10, &super::super::series::with_sums(point));
        }
        let bytes = head.to_chunk().data.len();
        // Five series; the sums are the same as their one part.
        assert!(bytes < 60 * 5 * 2, "{bytes}");
    }
}
