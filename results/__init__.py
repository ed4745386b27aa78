"""From stored runs to statistics and tables; reads files only, and imports none of the other rooms."""
