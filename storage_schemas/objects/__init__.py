"""Bytes in and out: files and objects, read with patience and published whole or not at all.

Door: store, publish, patience, file_systems, in_flight, pending_uploads, s3_upload, spans.
"""
