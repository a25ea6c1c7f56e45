"""What to do about each reason, in words; docs/reasons.md prints the same, and a test holds the two together."""

from appliance.errors import Reason

ADVICE: dict[Reason, str] = {
    Reason.UNREADABLE: "Send it again; if it stays so, export it anew at its source.",
    Reason.PARSER_DIED: "Export it anew at its source; keep the object, it may be damaged on purpose.",
    Reason.UID_INVALID: "Correct the UID at the sender.",
    Reason.SOP_CLASS_NOT_CT: "Send the CT series itself; other objects are not contoured.",
    Reason.ELEMENT_MISSING: "Let the source write the element, then send again.",
    Reason.ELEMENT_INVALID: "Correct the element at the source, then send again.",
    Reason.DECIMAL_NOT_FINITE: "Correct the value at the source, then send again.",
    Reason.PIXELS_TRUNCATED: "Send it again; the transfer or the export broke off.",
    Reason.PIXELS_UNDECODABLE: "Export it without compression and send it again.",
    Reason.PATIENT_MIXED: "Correct the series in the archive and send it again.",
    Reason.STUDY_MIXED: "Correct the series in the archive and send it again.",
    Reason.FRAME_OF_REFERENCE_MIXED: "Correct the series in the archive and send it again.",
    Reason.ORIENTATION_MIXED: "Send the axial slices as a series of their own.",
    Reason.SPACING_MIXED: "Send one reconstruction a series.",
    Reason.RESCALE_MIXED: "Send one reconstruction a series.",
    Reason.INSTANCE_CONFLICT: "Find out which content is right and send it as a new series.",
    Reason.POSITION_DUPLICATE: "Send one phase or reconstruction a series.",
    Reason.SLICE_MISSING: "Send the whole series again; the case waits for `intake.incomplete_wait_s` first.",
    Reason.SLICE_GAPS_UNEVEN: "Send a reconstruction with even gaps, or let the protocol take them (`uneven_gaps`).",
    Reason.TOO_FEW_SLICES: "Send the whole series.",
    Reason.SERIES_INCOMPLETE: (
        "Send the whole series again, or let the protocol fetch what is missing (`completion.fetch_missing`); "
        "the case waits first."
    ),
    Reason.COUNT_UNKNOWN: (
        "See that the PACS answers C-FIND, then send the series again; or let the protocol go on without "
        "(`completion.count`)."
    ),
    Reason.ORIENTATION_UNSUPPORTED: "Send an axial reconstruction; a tilted gantry is accepted.",
    Reason.NO_PROTOCOL: "Add or widen a protocol in `protocols/`, then send the series again.",
    Reason.MODEL_MISSING: "Install the model package, or correct the protocol.",
    Reason.MODEL_INVALID: (
        "Publish the package again; correct the protocol if it asks for structures that the model does not draw."
    ),
    Reason.MODEL_ALTERED: "Install the package again.",
    Reason.MODEL_UNSAFE: "Ask its source for the weights alone, as safetensors or ONNX.",
    Reason.INPUT_OUTSIDE_MODEL_LIMITS: "Send a scan within the limits that the model's card states.",
    Reason.MEMORY_TOO_SMALL: (
        "Give the worker more memory or close what else runs on the box, then send the series again; the "
        "sentence says how much is needed."
    ),
    Reason.NOTHING_FOUND: "Check that the scan shows the region of the protocol.",
    Reason.RESULT_INVALID: "Report it: the appliance stopped its own result.",
    Reason.STRUCTURE_SET_UNREADABLE: "Export it again at its source; `delineate check FILE` says more.",
    Reason.STRUCTURE_SET_MISMATCH: "Give the CT series that it was drawn on.",
    Reason.STRUCTURE_SET_UNCLEAR: (
        "`delineate check FILE --ct DIR` names the structures; correct them where they were drawn."
    ),
    Reason.WORKER_LOST: "See the worker's log, mend the cause, then `delineate case retry CASE`.",
    Reason.DESTINATION_REFUSES: "Enable the SOP class at the destination, then `delineate case retry CASE`.",
    Reason.PARKED_BY_OPERATOR: "`delineate case retry CASE` lets it go on where it stood.",
    Reason.CANCELLED_BY_OPERATOR: "`delineate case retry CASE` takes that back.",
}
