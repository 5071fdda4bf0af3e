//! The stages of a chunk's way through a datanode: the one list of them, and where each begins and ends.

use distrifs_proto::latency::Stage as StageList;

/// A stage. All are timed at every pass; `write.receive` to `write.forward` have one for each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Stage {
    /// From the opening of the chunk until it has a place and its buffers.
    WriteQueue,
    /// From there until its file is made and its room reserved.
    WriteCreate,
    /// From there too, until the next hop has been connected to and told of the chunk.
    WriteLink,
    /// From the header of a frame until its last byte is here.
    WriteReceive,
    /// The checksums of a frame.
    WriteCrc,
    /// From the hand-over of a frame to the disk until it is written.
    WriteDisk,
    /// From the begin of sending a frame to the next hop until the kernel has taken it.
    WriteForward,
    /// From the last frame's disk write until data and sidecar are synced.
    WriteSync,
    /// From there until the names are in place and their directory is synced: the commit.
    WritePublish,
    /// From the last frame until the next hop has acknowledged.
    WriteAck,
    /// From the commit here, or the acknowledgement of the next hop if that came later, until the answer goes.
    WriteAnswer,
    /// From the request until the chunk is open: nothing to do where it was open.
    ReadOpen,
    /// From there, or from the piece before, until a buffer is free.
    ReadQueue,
    /// From there until the piece is read, from the page cache or the disk.
    ReadDisk,
    /// Header and stored checksums put before the piece.
    ReadSeal,
    /// From there until the kernel has taken the piece, or another answer that is about to go has taken a small one along.
    ReadSend,
}

impl StageList for Stage {
    const ALL: &'static [Self] = &[
        Self::WriteQueue,
        Self::WriteCreate,
        Self::WriteLink,
        Self::WriteReceive,
        Self::WriteCrc,
        Self::WriteDisk,
        Self::WriteForward,
        Self::WriteSync,
        Self::WritePublish,
        Self::WriteAck,
        Self::WriteAnswer,
        Self::ReadOpen,
        Self::ReadQueue,
        Self::ReadDisk,
        Self::ReadSeal,
        Self::ReadSend,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::WriteQueue => "write.queue",
            Self::WriteCreate => "write.create",
            Self::WriteLink => "write.link",
            Self::WriteReceive => "write.receive",
            Self::WriteCrc => "write.crc",
            Self::WriteDisk => "write.disk",
            Self::WriteForward => "write.forward",
            Self::WriteSync => "write.sync",
            Self::WritePublish => "write.publish",
            Self::WriteAck => "write.ack",
            Self::WriteAnswer => "write.answer",
            Self::ReadOpen => "read.open",
            Self::ReadQueue => "read.queue",
            Self::ReadDisk => "read.disk",
            Self::ReadSeal => "read.seal",
            Self::ReadSend => "read.send",
        }
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// Between two frames: a hop waits for the one before it. In traces only, since it says nothing of this node.
pub(crate) const WRITE_AWAIT: &str = "write.await";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_is_in_its_place_under_a_name_of_its_own() {
        for (at, stage) in Stage::ALL.iter().enumerate() {
            assert_eq!(stage.index(), at, "{stage:?}");
            assert!(Stage::ALL[..at].iter().all(|other| other.name() != stage.name()), "{stage:?}");
        }
        assert!(Stage::ALL.len() <= distrifs_proto::frame::STAGES_MAX);
    }
}
