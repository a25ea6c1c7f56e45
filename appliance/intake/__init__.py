"""From the wire to a complete series: the listener keeps bytes, the assembler turns them into cases."""
