"""Volumes and flags of a segmentation as reports: DICOM SR, HL7 v2, FHIR."""
