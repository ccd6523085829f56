"""What a person looks at: tables and figures. They hold no logic of their own."""
