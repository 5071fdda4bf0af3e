//! How a transfer tells its caller how far it is.

/// Hears how far a transfer is; called often, from the task that transfers: keep it cheap.
pub trait Progress: Send + Sync {
    /// The transfer begins; `total` is the bytes to come where that is known.
    fn started(&self, total: Option<u64>);
    /// So many more bytes are through. Bytes that are sent or read again count once.
    fn advanced(&self, bytes: u64);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn started(&self, _total: Option<u64>) {}
    fn advanced(&self, _bytes: u64) {}
}
