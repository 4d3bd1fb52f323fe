//! Tests of the file store that need more than one of its parts.
