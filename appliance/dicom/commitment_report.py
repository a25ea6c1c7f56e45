"""A storage commitment report (PS3.4 §J.3.3), read once for intake and delivery, on whichever association it comes."""

from pydicom import Dataset


def commitment_report(report: Dataset) -> dict[str, object]:
    """What a report says: its transaction UID, the SOP Instance UIDs that are kept, and those that are not."""
    kept = [str(item.ReferencedSOPInstanceUID) for item in report.get("ReferencedSOPSequence", [])]
    lost = [str(item.ReferencedSOPInstanceUID) for item in report.get("FailedSOPSequence", [])]
    return {"transaction_uid": str(report.get("TransactionUID", "")), "kept": kept, "lost": lost}
