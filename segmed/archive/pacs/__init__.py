"""Archives in a PACS: by DICOMweb or by the classic DICOM network."""
