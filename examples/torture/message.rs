//! What a message looks like: seven words of header, then bytes that follow from the header.
//!
//! An empty message has no header. It has a sequence number all the same: the header behind it shows
//! that a number is missing, and the judge knows which numbers were empty messages.

use crate::plan::End;
use crate::side::Side;

/// No message with a header is smaller.
pub const HEADER: usize = 7 * 8;

const MAGIC: u64 = 0x7e57;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub slot: u16,
    pub life: u64,
    /// The sending end.
    pub from: End,
    /// In the order of invocation, per direction of a connection.
    pub sequence: u64,
    /// Of the whole message.
    pub len: u32,
    pub fds: u16,
    /// The last descriptor is a pipe's end; all others are tagged files.
    pub pipe: bool,
    /// The last message of this direction.
    pub last: bool,
    /// The process that made the files, and the first of them.
    pub files: u64,
    pub first_file: u32,
}

impl Header {
    fn words(&self) -> [u64; 7] {
        let flags = u64::from(self.pipe) | u64::from(self.last) << 1 | (self.from as u64) << 2;
        let mut words = [
            MAGIC << 48 | flags << 32 | u64::from(self.slot),
            self.life,
            self.sequence,
            u64::from(self.fds) << 32 | u64::from(self.len),
            self.files,
            u64::from(self.first_file),
            0,
        ];
        words[6] = checksum(&words[..6]);
        words
    }

    /// Whether a message to this end has such a header.
    pub fn is_for(&self, side: &Side) -> bool {
        let (plan, from) = (&side.plan, side.shared().end.other());
        (self.slot, self.life, self.from) == (plan.slot, plan.life, from)
    }

    /// The message, `self.len` bytes.
    pub fn encode(&self) -> Vec<u8> {
        let words = self.words();
        let mut bytes = Vec::with_capacity(self.len as usize + 8);
        for word in words {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        let mut at = 0;
        while bytes.len() < self.len as usize {
            bytes.extend_from_slice(&filling(words[6], at).to_le_bytes());
            at += 1;
        }
        bytes.truncate(self.len as usize);
        bytes
    }

    /// Check what was received of a message, which can be truncated.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let Some((head, payload)) = bytes.split_at_checked(HEADER) else {
            return Err(format!("{} bytes, too few for a header", bytes.len()));
        };
        let mut words = [0; 7];
        for (word, bytes) in words.iter_mut().zip(head.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("chunks of eight"));
        }
        if words[0] >> 48 != MAGIC || words[6] != checksum(&words[..6]) {
            return Err(format!("checksum of the header is wrong: {words:x?}"));
        }
        let flags = words[0] >> 32;
        let header = Self {
            slot: words[0] as u16,
            life: words[1],
            from: if flags & 4 == 0 { End::Main } else { End::Peer },
            sequence: words[2],
            len: words[3] as u32,
            fds: (words[3] >> 32) as u16,
            pipe: flags & 1 != 0,
            last: flags & 2 != 0,
            files: words[4],
            first_file: words[5] as u32,
        };
        for (at, piece) in payload.chunks(8).enumerate() {
            if *piece != filling(words[6], at as u64).to_le_bytes()[..piece.len()] {
                return Err(format!("wrong bytes at {} of {header:?}", HEADER + 8 * at));
            }
        }
        Ok(header)
    }
}

fn checksum(words: &[u64]) -> u64 {
    words.iter().fold(0x9e37_79b9_7f4a_7c15, |sum: u64, word| {
        (sum ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(29)
    })
}

fn filling(key: u64, at: u64) -> u64 {
    (key ^ at).wrapping_mul(0x9fb2_1c65_1e98_df25)
}
