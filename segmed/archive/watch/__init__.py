"""Studies as they arrive: a DICOM node, Orthanc or DICOMweb as a source that never ends."""
