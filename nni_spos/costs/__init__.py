"""The cost tables of a recipe's space: built, kept and measured."""
