"""Objects: read from files and object stores with retries, and published whole or not at all.

Door: dangling, store, publish, refusals, retry_policy, file_systems, file_lock, in_flight, pending_uploads, s3_upload,
spans.
"""
