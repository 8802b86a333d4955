"""params.yaml as frozen, validated types, read and edited by program.

Nothing here opens another file than one of parameters, or knows what is done with the values.
"""
