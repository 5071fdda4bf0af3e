//! Error codes through gRPC statuses.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::error_code::{ErrorCode, METADATA_KEY};
use crate::limits::ERROR_TEXT_BYTES_MAX;

/// The status that carries `code`: its number in the metadata, the closest gRPC code, and `text` (one line).
#[must_use]
pub fn status(code: ErrorCode, text: impl Into<String>) -> Status {
    let mut text = text.into();
    if text.len() > ERROR_TEXT_BYTES_MAX {
        let cut = (0..=ERROR_TEXT_BYTES_MAX).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(cut);
    }
    let mut status = Status::new(closest(code), text);
    status.metadata_mut().insert(METADATA_KEY, MetadataValue::from(code.number()));
    status
}

/// The code that a status carries. One from outside DistriFS (a proxy, the transport) is taken by its gRPC code.
#[must_use]
pub fn code_of(status: &Status) -> ErrorCode {
    let carried =
        status.metadata().get(METADATA_KEY).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    if let Some(code) = carried.and_then(ErrorCode::from_number) {
        return code;
    }
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            ErrorCode::Unavailable
        }
        Code::InvalidArgument | Code::OutOfRange => ErrorCode::InvalidArgument,
        Code::NotFound => ErrorCode::NotFound,
        Code::AlreadyExists => ErrorCode::AlreadyExists,
        Code::PermissionDenied | Code::Unauthenticated => ErrorCode::PermissionDenied,
        Code::ResourceExhausted => ErrorCode::LimitExceeded,
        Code::DataLoss => ErrorCode::Corrupt,
        _ => ErrorCode::Internal,
    }
}

/// What a status says, on one line.
#[must_use]
pub fn text_of(status: &Status) -> String {
    let text = status.message().replace(|c: char| c.is_control(), " ");
    if text.is_empty() { code_of(status).to_string() } else { text }
}

fn closest(code: ErrorCode) -> Code {
    match code {
        ErrorCode::InvalidArgument | ErrorCode::Protocol => Code::InvalidArgument,
        ErrorCode::NotFound | ErrorCode::NoSuchChunk => Code::NotFound,
        ErrorCode::AlreadyExists => Code::AlreadyExists,
        ErrorCode::PermissionDenied => Code::PermissionDenied,
        ErrorCode::IsADirectory
        | ErrorCode::NotADirectory
        | ErrorCode::NotEmpty
        | ErrorCode::NotEnoughDatanodes
        | ErrorCode::SafeMode
        | ErrorCode::LeaseExpired
        | ErrorCode::StaleEpoch
        | ErrorCode::StaleGeneration
        | ErrorCode::WrongCluster => Code::FailedPrecondition,
        ErrorCode::NoSpace | ErrorCode::LimitExceeded => Code::ResourceExhausted,
        ErrorCode::Corrupt => Code::DataLoss,
        ErrorCode::Unavailable | ErrorCode::HopFailed | ErrorCode::Busy => Code::Unavailable,
        ErrorCode::Unknown => Code::Aborted,
        ErrorCode::Disk | ErrorCode::Internal => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_a_status() {
        for &code in ErrorCode::ALL {
            let status = status(code, "why");
            assert_eq!((code_of(&status), text_of(&status).as_str()), (code, "why"));
        }
    }

    #[test]
    fn a_status_without_a_number_is_taken_by_its_grpc_code() {
        assert_eq!(code_of(&Status::unavailable("gone")), ErrorCode::Unavailable);
        assert_eq!(code_of(&Status::unimplemented("new")), ErrorCode::Internal);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let status = status(ErrorCode::Internal, "é".repeat(ERROR_TEXT_BYTES_MAX));
        assert!(status.message().len() <= ERROR_TEXT_BYTES_MAX);
    }
}
