//! Backups: the records as a stream of parts, and back.

use crate::{
    store::{read_record, write_record},
    table::Peer,
};
use p2pdi::{
    VERSION,
    field::InvalidField,
    network::NetworkName,
    v1::{BackupEnd, BackupHeader, BackupPart, BackupRecords, backup_part::Part},
};
use std::{collections::BTreeSet, time::SystemTime};

/// The format that this version writes and reads.
const FORMAT: u32 = 1;
/// Most records in one part.
const RECORDS_MAX: usize = 1_000;
/// A part takes no further record after this many bytes. The largest record has some 3 KiB.
const PART_BYTES: usize = 200 * 1024;

fn part(part: Part) -> BackupPart {
    BackupPart { part: Some(part) }
}

/// The parts of a backup, made one after the other.
pub(crate) struct BackupWriter {
    header: Option<BackupHeader>,
    peers: Vec<Peer>,
    records: u64,
    ended: bool,
}

impl BackupWriter {
    pub(crate) fn new(network: &NetworkName, revision: u64, peers: Vec<Peer>) -> Self {
        let header = BackupHeader {
            format: FORMAT,
            network: network.to_string(),
            revision,
            made_at: Some(SystemTime::now().into()),
            made_by: VERSION.to_owned(),
        };
        Self { header: Some(header), records: peers.len() as u64, peers, ended: false }
    }
}

impl Iterator for BackupWriter {
    type Item = BackupPart;

    fn next(&mut self) -> Option<BackupPart> {
        if let Some(header) = self.header.take() {
            return Some(part(Part::Header(header)));
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        while records.len() < RECORDS_MAX && bytes < PART_BYTES {
            let Some(peer) = self.peers.pop() else { break };
            let record = write_record(&peer);
            bytes += record.len();
            records.push(record.into());
        }
        if !records.is_empty() {
            return Some(part(Part::Records(BackupRecords { records })));
        }
        (!std::mem::replace(&mut self.ended, true)).then(|| part(Part::End(BackupEnd { records: self.records })))
    }
}

/// A backup that is read part by part. Nothing of it counts before its end.
pub(crate) struct BackupReader {
    records_max: usize,
    header: Option<BackupHeader>,
    names: BTreeSet<String>,
    peers: Vec<Peer>,
    ended: bool,
}

impl BackupReader {
    /// Takes `records_max` records at most.
    pub(crate) fn new(records_max: usize) -> Self {
        Self { records_max, header: None, names: BTreeSet::new(), peers: Vec::new(), ended: false }
    }

    /// Takes one more part.
    pub(crate) fn add(&mut self, part: Option<BackupPart>) -> Result<(), InvalidField> {
        let wrong = |problem: String| Err(InvalidField::new("part", problem));
        let part = part.and_then(|part| part.part);
        match part {
            _ if self.ended => wrong("there is more after the end of the backup".to_owned()),
            Some(Part::Header(header)) if self.header.is_none() => {
                if header.format != FORMAT {
                    let found = header.format;
                    return wrong(format!(
                        "the backup has format {found}, and this registry reads {FORMAT}; use a registry of its version"
                    ));
                }
                self.header = Some(header);
                Ok(())
            }
            Some(Part::Records(BackupRecords { records })) if self.header.is_some() => {
                for record in records {
                    let peer = read_record(&record)
                        .map_err(|problem| InvalidField::new("part", format!("a record is damaged: {problem}")))?;
                    let name = peer.strings.name().to_ascii_lowercase();
                    if self.peers.len() >= self.records_max {
                        let max = self.records_max;
                        return wrong(format!("the backup has more records than this registry takes ({max}; see --max-peers)"));
                    }
                    if !self.names.insert(name) {
                        return wrong(format!("the backup has two records of {}", peer.strings.name()));
                    }
                    self.peers.push(peer);
                }
                Ok(())
            }
            Some(Part::End(BackupEnd { records })) if self.header.is_some() => {
                if records != self.peers.len() as u64 {
                    return wrong(format!("the backup has {} records, and its end says {records}", self.peers.len()));
                }
                self.ended = true;
                Ok(())
            }
            Some(_) => wrong("the parts of the backup are not in order: a header, records, an end".to_owned()),
            None => wrong("a part of the backup is of a kind that this registry does not know".to_owned()),
        }
    }

    /// The network, once the header is there.
    pub(crate) fn network(&self) -> Option<&str> {
        self.header.as_ref().map(|header| header.network.as_str())
    }

    /// The records of a backup that is complete.
    pub(crate) fn finish(self) -> Result<Vec<Peer>, InvalidField> {
        if self.ended {
            return Ok(self.peers);
        }
        Err(InvalidField::new("part", "the backup is cut off: it has no end"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{Labels, PackedStrings, Registrations};
    use p2pdi::{cookie::CookieHash, id::PeerId};
    use std::net::Ipv6Addr;

    fn peers(count: u32) -> Vec<Peer> {
        let peer = |number: u32| Peer {
            strings: PackedStrings::new(&format!("p{number}"), "10.0.0.1:7801", &Labels::default()),
            id: PeerId::from_bytes([1; 16]),
            cookie: CookieHash::from_bytes(u128::from(number).to_be_bytes()),
            address: Ipv6Addr::LOCALHOST,
            first_registered_ms: 1,
            last_registered_ms: 2,
            last_active_ms: 3,
            registrations: Registrations::default(),
            active: number.is_multiple_of(2),
        };
        (0..count).map(peer).collect()
    }

    fn parts(count: u32) -> Vec<BackupPart> {
        BackupWriter::new(&NetworkName::default(), 7, peers(count)).collect()
    }

    fn read(parts: impl IntoIterator<Item = BackupPart>) -> Result<Vec<Peer>, String> {
        let mut reader = BackupReader::new(5_000);
        for part in parts {
            reader.add(Some(part)).map_err(|error| error.to_string())?;
        }
        reader.finish().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_is_read_and_each_cut_or_shuffled_backup_is_refused() {
        for count in [0, 1, 2_500] {
            let mut read = read(parts(count)).unwrap();
            read.sort_by_key(|peer| *peer.cookie.as_bytes());
            assert_eq!(read, peers(count));
        }
        let whole = parts(2_500);
        for cut in 0..whole.len() {
            assert!(read(whole[..cut].to_vec()).unwrap_err().contains("cut off"), "{cut}");
        }
        for left_out in 0..whole.len() - 1 {
            let mut parts = whole.clone();
            parts.remove(left_out);
            assert!(read(parts).is_err(), "{left_out}");
        }
        let twice = [&whole[..2], &whole[1..]].concat();
        assert!(read(twice).unwrap_err().contains("two records"));
        assert!(read([&whole[..], &whole[..1]].concat()).unwrap_err().contains("after the end"));
        assert!(read(parts(5_001)).unwrap_err().contains("--max-peers"));
    }

    #[test]
    fn another_format_and_a_damaged_record_are_refused_in_words() {
        let newer = part(Part::Header(BackupHeader { format: 2, ..BackupHeader::default() }));
        assert!(read([newer]).unwrap_err().contains("format 2"));
        let damaged = part(Part::Records(BackupRecords { records: vec![vec![0xff; 20].into()] }));
        assert!(read([parts(0)[0].clone(), damaged]).unwrap_err().contains("damaged"));
        assert!(BackupReader::new(1).add(None).is_err());
    }
}
